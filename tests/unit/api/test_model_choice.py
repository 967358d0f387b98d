"""What the model of a manifest is called wherever jobs are compared."""

from typing import Any

import pytest

from headrace.api.manifest import TrainingJob, canonical_json
from headrace.api.model_choice import model_name
from headrace.api.models import PRESETS
from tests.contract.cli.fake_control_plane import manifest

SCRIPT = {"file": "/scripts/train.py"}


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"model": {"name": "gpt2"}}, "gpt2-tiny"),
        ({"model": {"name": "llama", "preset": "2-7b"}}, "llama-2-7b"),
        (
            {"model": {"name": "gpt2", "config": {"vocabSize": 512, "hiddenSize": 64}}},
            "gpt2-tiny+hiddenSize=64+vocabSize=512",
        ),
        ({"model": {"name": "bert", "weights": "/models/bert-large/"}}, "bert:bert-large"),
        ({"model": None, "data": None, "script": SCRIPT}, "train.py"),
        (
            {
                "model": None,
                "data": None,
                "training": None,
                "command": {"program": ["/usr/bin/torchrun", "x.py"]},
            },
            "torchrun",
        ),
    ],
)
def test_it_is_called_by_what_is_trained(spec: dict[str, Any], name: str) -> None:
    whole = manifest("job", **spec)
    whole["spec"] = {key: value for key, value in whole["spec"].items() if value is not None}
    if "command" in spec:
        whole["spec"]["accelerators"] = {"minimum": 1}
        del whole["spec"]["checkpoint"]
    told = TrainingJob.model_validate(whole)
    document = TrainingJob.model_validate_json(canonical_json(told))
    assert model_name(document.model_dump(mode="json", by_alias=True)["spec"]) == name


def test_that_of_a_preset_is_the_presets() -> None:
    for full, shape in PRESETS.items():
        preset = full.removeprefix(f"{shape.family}-")
        assert model_name({"model": {"name": str(shape.family), "preset": preset}}) == full
    assert model_name({}) == ""
