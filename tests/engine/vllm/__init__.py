"""The engine over vLLM: with stand-ins for vLLM in a usual run, and with vLLM itself, marked `vllm`.

What shows what becomes of edits under something that vLLM does (the contract is tests/engine/test_serving_contract.py,
over vLLM in a process of this server's own and over one that runs already, each roomy and crowded, and once compiled):

- requests with and without an edit in one batch, seeds, several answers to one prompt, `logit_bias`, log probabilities,
  answers by a schema: the contract
- prompts in chunks, the prefix cache and its salt, preemption with everything computed again: the contract, crowded;
  `test_rows` for the rule by any way to cut an answer into steps
- edits that are LoRAs beside edits of rows: `test_adapters`; refused with a vLLM that runs already: `test_engine`
- LoRAs of clients' own in a vLLM that runs already: `test_own_loras`
- speculative decoding by n-grams, lookahead: `test_lookahead`; any other drafter is refused: `test_sampling_arguments`,
  and by vLLM's loader: `test_inner`
- tensor and pipeline parallelism: `test_parallel`
- asynchronous scheduling, the V2 model runner, dual batch overlap, data and prefill context parallelism are refused:
  `test_inner`
- a version that lacks a name which is read: `test_names`
- quantised weights: `test_quantised_served`; what cannot be read is refused: `fitter/test_quantised_weights`
- trials, dry runs, rollbacks: `test_served`, `test_attached_served`; an edit that is dropped and comes back: contract
"""
