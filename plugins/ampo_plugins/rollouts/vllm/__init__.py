"""vLLM as the sampler."""
