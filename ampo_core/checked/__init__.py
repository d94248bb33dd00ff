"""What plugins are asked and what they answered: the only place through which the core calls a component.

`call.py` names the component in whatever goes wrong; the other files say, hop by hop, what an answer must be. Read
`call.py` first.
"""
