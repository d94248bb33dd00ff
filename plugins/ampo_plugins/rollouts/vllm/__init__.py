"""vLLM as the sampler: inside the training process (`vllm`), or as servers of its own (`vllm_server`).

Read first engine.py, the one in the process, or server_engine.py, the one that asks servers; spec.py has the options of
both. Both word requests by samples.py and check a weight sync by weights.py. process.py keeps a vLLM from changing the
process that it is in; transfer.py is how weights get to servers.
"""
