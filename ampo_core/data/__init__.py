"""From files to questions, in this order: read `questions.py` first.

rows.py       Parquet and JSON lines (json_lines.py) -> rows, with the number that a person finds them by
contract.py   row -> checked row: messages, ground truth, teacher answers; an error names file, row and field
questions.py  checked rows -> questions: selected, verified, tokenised (tokens.py; turns.py finds where a turn ends);
              rows of one question share their teacher answers (repeats.py); what is left out is counted (report.py);
              overlap.py says what is odd about them
order.py      the order in which questions are trained on; seeds.py: every seed of a run, from where it is used

contract_files.py writes the same files.
"""
