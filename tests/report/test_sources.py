"""Which runs a folder holds, and what is said of one that holds none."""

import pytest
from ampo_registry import ConfigError

from ampo_core.report.build import report_path
from ampo_core.report.sources import collect

from .conftest import describe, write_run


def names(subject):
    return [(entry.name, entry.job, len(entry.runs)) for entry in subject.entries]


def test_a_run(run):
    subject = collect([run])
    assert (subject.title, subject.kind, names(subject)) == ("ampo", "train", [("ampo", "train", 1)])
    (data,) = subject.entries[0].runs
    assert (data.steps, data.finished, data.setting("guidance.selector.type")) == (40, True, "comprehension")
    assert data.setting("guidance.kl.coefficient", 0.5) == 0.5


def test_stages_of_a_pipeline_come_in_its_order(pipeline):
    subject = collect([pipeline])
    assert subject.kind == "pipeline"
    assert [name for name, _, _ in names(subject)] == ["world", "grpo", "ampo", "evaluate"]


def test_runs_of_a_suite_are_gathered_over_seeds_in_its_order(suite):
    subject = collect([suite])
    assert subject.kind == "suite"
    assert names(subject)[:2] == [("grpo", "train", 2), ("ampo", "train", 2)]
    assert names(subject)[2:] == [("sampled/ampo", "evaluate", 2), ("sampled/grpo", "evaluate", 2)]
    assert [run.finished for run in subject.entries[0].runs] == [True, False]


def test_a_pipeline_inside_a_suite_brings_its_stages(suite, tmp_path):
    stages = [{"name": "sft", "config": "sft.yaml"}, {"name": "rl", "config": "grpo.yaml"}]
    describe(suite / "seed-0/both", {"job": "pipeline", "stages": stages})
    write_run(suite / "seed-0/both/rl")
    assert ("both/rl", "train", 1) in names(collect([suite]))


def test_several_folders_keep_their_names_or_get_as_much_of_the_path_as_tells_them_apart(suite, run):
    assert [name for name, _, _ in names(collect([run, suite / "seed-0/grpo"]))] == ["ampo", "grpo"]
    two = collect([suite / "seed-0/ampo", suite / "seed-1/ampo"])
    assert names(two) == [("seed-0/ampo", "train", 1), ("seed-1/ampo", "train", 1)]


def test_where_a_report_goes(suite):
    assert report_path([suite]) == suite / "report.html"
    assert report_path([suite / "seed-0/ampo", suite / "seed-1/ampo"]) == suite / "comparison.html"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("amop", "there is no folder {tmp}/amop; did you mean {tmp}/ampo?"),
        ("else/where", "there is no folder {tmp}/else/where, nor {tmp}/else"),
        (".", "{tmp} is no run folder: it holds no config.yaml and manifest.json; did you mean {tmp}/ampo?"),
        ("ampo/done", "{tmp}/ampo/done is a file; a report needs the folder of a run"),
    ],
)
def test_a_wrong_folder_is_refused_in_words(run, tmp_path, name, said):
    with pytest.raises(ConfigError) as caught:
        collect([tmp_path / name])
    assert str(caught.value) == said.format(tmp=tmp_path)


def test_a_config_or_metrics_that_cannot_be_read_are_named(run):
    (run / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl, line 1"):
        collect([run])
    (run / "manifest.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"manifest\.json is not a JSON object"):
        collect([run])
