"""Trains the scope's models: `python -m app.scope_training`.

First the pair scorer learns from all items but those held out (`scorer_training`); then the match model is fitted on
these (`match_model_training`).
"""

import argparse
from pathlib import Path

from app.scope.encoder import MINILM, Encoder, find_encoder
from app.scope.match_model import MATCH_WEIGHTS
from app.scope.scorer import WEIGHTS, load_scorer
from app.scope_training.items import PAIRS, all_items
from app.scope_training.match_model_training import fit_weights
from app.scope_training.scorer_training import NOISY, TUNED_RATE, TrainingTexts, save, train


def main() -> None:
    """Train the scorer, fit the match model, and write both files: those that ship, or those of another encoder into
    its folder."""
    parser = argparse.ArgumentParser(prog="python -m app.scope_training", description=main.__doc__)
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="the folder of items and intents")
    parser.add_argument("--encoder", default=MINILM)
    parser.add_argument("--out", type=Path, help="the scorer's file, if it is to be another one than the server reads")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=6, help="beside the frozen encoder")
    parser.add_argument(
        "--tuned-epochs", type=int, default=4, help="with the encoder's upper layers, each ten times as long"
    )
    parser.add_argument("--made", type=int, default=400)
    parser.add_argument("--onward", type=Path, help="train these weights on, rather than new ones")
    parser.add_argument("--rate", type=float, default=TUNED_RATE, help="the highest, of the tuned epochs")
    parser.add_argument("--focus", nargs="*", default=[], help="fields whose items are all trained on")
    parser.add_argument("--rest", type=float, default=1.0, help="with a focus, the share of other items")
    parser.add_argument("--noisy", type=float, default=NOISY, help="the share of texts that also have a noisy version")
    arguments = parser.parse_args()
    if not arguments.pairs.is_dir():  # a wheel is without the pairs
        parser.error(f"There are no pairs at {arguments.pairs}: run this in a checkout, or name a folder with --pairs")
    folder = find_encoder(arguments.encoder)
    out = arguments.out or (WEIGHTS if arguments.encoder == MINILM else folder / WEIGHTS.name)
    encoder = Encoder(folder)
    tuned = encoder.tunable()
    items = all_items(arguments.pairs, arguments.made, arguments.focus, arguments.rest)
    material = TrainingTexts(items, encoder.encode, arguments.noisy)
    print(f"{len(material.items)} items are encoded", flush=True)
    net = None
    if arguments.onward:
        before = load_scorer(arguments.onward)
        if before.encoder != encoder.fingerprint:
            parser.error(f"{arguments.onward} was trained with another encoder than {arguments.encoder}")
        net = before.network()
        tuned.load_state_dict(before.learned, strict=False)
    if arguments.epochs:
        net = train(material, arguments.seed, arguments.epochs, net=net)
    net = train(material, arguments.seed, arguments.tuned_epochs, net=net, tuned=tuned, rate=arguments.rate)
    save(net, tuned, encoder.fingerprint, out)
    scorer = load_scorer(out)
    fit_weights(Encoder(folder, scorer.learned), scorer, arguments.pairs, out.with_name(MATCH_WEIGHTS.name))


if __name__ == "__main__":
    main()
