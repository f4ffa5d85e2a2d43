"""`errata eval`: how well edits hold, by real generation. Above the service, which it drives as a client would.

`rows` reads a file, `cases` what a row edits, `choosing` takes those that are wanted; `candidates` are what is judged,
served editors and the semantic cache that one would build otherwise; `asking` puts questions to them; `scores` counts;
`measuring` takes all figures at one number of edits; `running` goes through the edits, and keeps a `journal` in the
run's `folder` to be taken up again by; `report` and `plot` show it.

Other kinds of cases ask which questions an edit reaches: `kinds` tells them apart; `support`, `pairs` and
`conversations` make `trials` of them; `trying` makes the edits and asks, `verdicts` counts, `trial_report` shows it.
"""
