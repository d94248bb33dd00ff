"""The `transformers` rollout: sampling with the model's own forward and a KV cache, on a CPU or a GPU.

spec.py has its options. Read engine.py first, which batches requests; decoding.py decodes one batch, token_sampling.py
draws its tokens, and cpu_attention.py attends on a CPU.
"""
