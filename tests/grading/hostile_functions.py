"""A function, as verl calls it, that does to its worker what the response says."""

import os


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if solution_str == "spin":
        while True:
            pass
    if solution_str == "exit":
        os._exit(7)
    if solution_str == "memory":
        return float(len(bytes(8 * 2**30)))
    if solution_str == "raise":
        raise RuntimeError("it broke")
    return {"score": float(solution_str == ground_truth), "split": extra_info["index"]}


def of_no_number(solution_str):
    """Text where a number is expected."""
    return None if solution_str == "none" else solution_str
