"""`errata eval`: measures how well edits hold, by real generation. It sits above the service and drives it as a client
would.

`rows` reads files; `cases` turns rows into edits; `case_selection` selects cases; `candidates` are what is evaluated:
served editors, or the semantic cache that one would build otherwise (`semantic_cache`); `questioner` sends questions;
`scores` counts; `measurement` takes all figures at one number of edits; `run` works through the edits and writes a
`journal` in the run's `folder`, from which an interrupted run resumes; `report` and `plot` present the figures.

Other kinds of cases measure which questions an edit reaches: `kinds` recognises them; `support`, `pairs` and
`conversations` turn them into `trials`; `trial_runs` makes the edits and asks; `verdicts` counts; `trial_report`
presents.
"""
