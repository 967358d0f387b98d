"""Objects that are right but for one thing: for each rule of the custom resources one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
Change = Callable[[Document], object]


def _job(**spec: Any) -> Document:
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "job"},
        "spec": {"accelerators": {"minimum": 2, "maximum": 4}, **spec},
    }


_TRAINED: Document = {
    "training": {"globalBatchSize": 16, "steps": 100},
    "checkpoint": {"store": "/checkpoints"},
}
GPT = _job(model={"name": "gpt2"}, data={"source": "python-stdlib"}, **_TRAINED)
VIT = _job(model={"name": "vit"}, data={"source": "digits"}, **_TRAINED)
WEIGHTS = _job(
    model={"name": "llama", "weights": "/w"}, data={"source": "python-stdlib"}, **_TRAINED
)
SCRIPT = _job(script={"file": "/train.py"}, **_TRAINED)
COMMAND = _job(accelerators={"minimum": 2}, command={"program": ["python", "train.py"]})
QUEUE: Document = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "Queue",
    "metadata": {"name": "queue"},
    "spec": {"quotaAccelerators": 4, "namespaces": ["team-a"]},
}
POLICY: Document = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "ClusterPolicy",
    "metadata": {"name": "default"},
    "spec": {"policy": "fifo", "periodSeconds": 0.5, "rubick": {"attempts": 7}},
}
RIGHT = {
    "gpt": GPT,
    "vit": VIT,
    "weights": WEIGHTS,
    "script": SCRIPT,
    "command": COMMAND,
    "queue": QUEUE,
    "policy": POLICY,
}


def put(path: str, value: Any) -> Change:
    """Sets a field, with what is above it."""

    def change(document: Document) -> None:
        *parents, last = path.split(".")
        part = document
        for key in parents:
            part = part.setdefault(key, {})
        part[last] = value

    return change


def drop(path: str) -> Change:
    """Takes a field away."""

    def change(document: Document) -> None:
        *parents, last = path.split(".")
        part = document
        for key in parents:
            part = part[key]
        del part[last]

    return change


def changed(base: Document, *changes: Change) -> Document:
    """A copy with changes."""
    document = copy.deepcopy(base)
    for change in changes:
        change(document)
    return document


@dataclass(frozen=True, slots=True)
class Broken:
    """An object that breaks one rule.

    Attributes:
        place: Where the rule stands.
        words: Of its message; of the rules of this place only its own has them.
        base: The right object.
        changes: What makes it wrong.
    """

    place: str
    words: str
    base: Document
    changes: tuple[Change, ...]

    @property
    def kind(self) -> str:
        """Of the object."""
        return str(self.base["kind"])

    @property
    def document(self) -> Document:
        """The wrong object."""
        return changed(self.base, *self.changes)


def _broken(place: str, words: str, base: Document, *changes: Change) -> Broken:
    return Broken(place, words, base, changes)


def _plans(words: str, plan: str, *changes: Change, base: Document = GPT) -> Broken:
    place = "spec" if words.endswith("!") else "spec.plans[]"
    return Broken(place, words.rstrip("!"), base, (put("spec.plans", [plan]), *changes))


_PASSWORD = "s3://user:secret@host/path"
_IN_PASSWORDS = (
    ("spec.model.weights", WEIGHTS, put("spec.model.weights", _PASSWORD)),
    ("spec.data.source", GPT, put("spec.data.source", _PASSWORD)),
    ("spec.script.file", SCRIPT, put("spec.script.file", f"/{_PASSWORD}")),
    ("spec.script.arguments[]", SCRIPT, put("spec.script.arguments", [_PASSWORD])),
    ("spec.script.workingDirectory", SCRIPT, put("spec.script.workingDirectory", _PASSWORD)),
    ("spec.command.program[]", COMMAND, put("spec.command.program", ["x", _PASSWORD])),
    ("spec.command.workingDirectory", COMMAND, put("spec.command.workingDirectory", _PASSWORD)),
    ("spec.command.image", COMMAND, put("spec.command.image", _PASSWORD)),
    (
        "spec.volumes[].mountPath",
        GPT,
        put("spec.volumes", [{"name": "v", "mountPath": _PASSWORD, "hostPath": {"path": "/v"}}]),
    ),
    (
        "spec.volumes[].hostPath.path",
        GPT,
        put("spec.volumes", [{"name": "v", "mountPath": "/v", "hostPath": {"path": _PASSWORD}}]),
    ),
    ("spec.checkpoint.store", GPT, put("spec.checkpoint.store", _PASSWORD)),
    (
        "spec.checkpoint.startFrom.store",
        GPT,
        put("spec.checkpoint.startFrom", {"uid": "u", "store": _PASSWORD}),
    ),
)
_NO_PART = "belongs to a built-in model or a script"
_RIGID = put("spec.accelerators", {"minimum": 3})

CREATED = (
    _broken("", "wanted a name", GPT, put("metadata.name", "has.dots")),
    _broken("", "wanted a name", QUEUE, put("metadata.name", "q" * 64)),
    _broken("", "a cluster has one policy", POLICY, put("metadata.name", "another")),
    _broken("spec", "wanted exactly one of model", GPT, put("spec.script", {"file": "/x"})),
    _broken("spec", "data is required with a built-in", GPT, drop("spec.data")),
    _broken("spec", "training is required with a built-in", GPT, drop("spec.training")),
    _broken("spec", "checkpoint is required with a built-in", GPT, drop("spec.checkpoint")),
    _broken("spec", "training is required with a script", SCRIPT, drop("spec.training")),
    _broken("spec", "checkpoint is required with a script", SCRIPT, drop("spec.checkpoint")),
    _broken("spec", "a script opens its own data", SCRIPT, put("spec.data.source", "digits")),
    _broken("spec", f".data {_NO_PART}", COMMAND, put("spec.data.source", "digits")),
    _broken(
        "spec",
        f".training {_NO_PART}",
        COMMAND,
        put("spec.training", {"globalBatchSize": 2, "steps": 1}),
    ),
    _broken("spec", f".plans {_NO_PART}", COMMAND, put("spec.plans", ["dp2"])),
    _broken("spec", "cannot save the state", COMMAND, put("spec.checkpoint.store", "/c")),
    _broken("spec", "runs at one size", COMMAND, put("spec.accelerators.maximum", 4)),
    _broken("spec", "wanted a sample for each", GPT, put("spec.training.globalBatchSize", 1)),
    _broken("spec", "wanted a multiple of the accelerators", GPT, _RIGID),
    _broken("spec", "vit learns from", VIT, put("spec.data.source", "/text")),
    _broken("spec", "digits are images", GPT, put("spec.data.source", "digits")),
    _broken("spec", "no sequence length", VIT, put("spec.data.sequenceLength", 8)),
    _broken("spec", "text is read as bytes", GPT, put("spec.model.config", {"vocabSize": 255})),
    _plans("at least the minimum and at most the maximum!", "dp8"),
    _plans("replicas times the micro-batches!", "dp2-ga3"),
    _plans("at most microBatchSizeMax!", "dp2", put("spec.training.microBatchSizeMax", 4)),
    _plans("training code of your own!", "pp2.1f1b-ga2", base=SCRIPT),
    _plans("are split by tensors!", "tp2", base=VIT),
    _plans("wanted ZeRO-1 with replicas", "dp2-tp2-z1"),
    _plans("wanted ZeRO-2 or 3 with offload", "dp2-offload"),
    _plans("wanted offload with replicas", "dp2-tp2-z2-offload"),
    _plans("wanted two replicas", "tp2-z2"),
    _plans("zb schedule without ZeRO-3", "dp2-pp2.zb-z3-ga2"),
    _plans("without activation checkpointing", "pp2.zb-ga2-gc"),
    _plans("for the gpipe schedule", "pp2.gpipe"),
    _plans("for the 1f1b schedule", "pp4.1f1b-ga2"),
    _plans("interleaved and the zb", "pp2.interleaved"),
    _broken("spec.plans", "every plan once", GPT, put("spec.plans", ["dp4", "dp2", "dp4"])),
    _broken("spec.managedBy", "wanted headrace.dev/control", GPT, put("spec.managedBy", "me")),
    _broken("spec.accelerators", "at least the minimum", GPT, put("spec.accelerators.maximum", 1)),
    _broken(
        "spec.accelerators.selector",
        "keys of labels",
        GPT,
        put("spec.accelerators.selector", {"-zone": "a"}),
    ),
    _broken("spec.model", "no preset beside", WEIGHTS, put("spec.model.preset", "tiny")),
    _broken("spec.model", "no config beside", WEIGHTS, put("spec.model.config.hiddenSize", 64)),
    _broken("spec.model", "a preset of the model's", GPT, put("spec.model.preset", "336m")),
    _broken("spec.model", "layers of a decoder", GPT, put("spec.model.config.numDecoderLayers", 2)),
    _broken("spec.model", "vit has patchSize", GPT, put("spec.model.config.patchSize", 2)),
    _broken("spec.model", "vit has imageSize", GPT, put("spec.model.config.imageSize", 2)),
    _broken("spec.model", "vit has numChannels", GPT, put("spec.model.config.numChannels", 2)),
    _broken(
        "spec.model", "tie their embeddings", VIT, put("spec.model.config.tieWordEmbeddings", True)
    ),
    _broken(
        "spec.model",
        "only llama shares heads",
        GPT,
        put("spec.model.config", {"numKeyValueHeads": 2, "numAttentionHeads": 4}),
    ),
    _broken("spec.script", "wanted an absolute path", SCRIPT, put("spec.script.file", "train.py")),
    _broken("spec.env[]", "exactly one of value", GPT, put("spec.env", [{"name": "A"}])),
    _broken(
        "spec.env[]", "set by Headrace", GPT, put("spec.env", [{"name": "RANK", "value": "0"}])
    ),
    _broken(
        "spec.env[]",
        "set by torchrun",
        COMMAND,
        put("spec.env", [{"name": "ROLE_RANK", "value": "0"}]),
    ),
    _broken(
        "spec.volumes[]",
        "exactly one of hostPath",
        GPT,
        put("spec.volumes", [{"name": "v", "mountPath": "/v"}]),
    ),
    _broken("spec.training", "at most steps", GPT, put("spec.training.warmupSteps", 101)),
    _broken(
        "spec.retries",
        "at least backoffSeconds",
        GPT,
        put("spec.retries", {"backoffSeconds": 9, "backoffMaxSeconds": 8}),
    ),
    *(_broken(place, "has a password", base, change) for place, base, change in _IN_PASSWORDS),
)
"""What cannot be made."""

UPDATED = (
    _broken("spec", "weights of another model", GPT, put("spec.model.preset", "small")),
    _broken("spec", "another script is", SCRIPT, put("spec.script.file", "/other.py")),
    _broken("spec", "another program is", COMMAND, put("spec.command.program", ["python"])),
    _broken("spec", "the order of the data", GPT, put("spec.data.source", "/text")),
    _broken("spec", "initialisation and order", GPT, put("spec.training.seed", 1)),
    _broken("spec", "in another store", GPT, put("spec.checkpoint.store", "/elsewhere")),
    _broken("spec", "another controller", GPT, put("spec.managedBy", "headrace.dev/control-plane")),
    _broken(
        "spec.checkpoint", "has begun already", GPT, put("spec.checkpoint.startFrom", {"uid": "u"})
    ),
)
"""What nothing right can become."""

MAY_CHANGE = (
    put("spec.suspend", True),
    put("spec.priority", 7),
    put("spec.queue", "other"),
    put("spec.accelerators.maximum", 8),
    put("spec.plans", ["dp4", "dp2"]),
    put("spec.training.steps", 200),
    put("spec.checkpoint.everySteps", 7),
    # It is what was taken anyway.
    put("spec.model.preset", "tiny"),
    put("spec.training.seed", 0),
)
"""What a job of a built-in model may become while it runs."""
