"""What a run leaves in its folder, and needs to go on.

folder.py            which files a run has, and who writes them; read this first
files.py             how files are read, and written so that a crash leaves no halves
disk.py              what the system refuses to write, in words
lock.py              keeps a second process out of the folder
manifest.py          what a run ran with; changes.py: what of it differs now; history.py: the marks of changes
checkpoint_store.py  the folder checkpoints/: newest, best, pruned
resume.py            whether a run begins, goes on, starts over or is refused
environment.py       what a job gets beside its config
progress.py          what is shown meanwhile
interrupt.py         SIGTERM and Ctrl-C; parent.py: a process that ends with the one that started it
"""
