"""What the API server checks of a ``TrainingJob`` beyond types and ranges, and what it cannot.

Each rule is one of ``headrace.api.manifest`` and of the modules beside it, or of
``controlplane.wire.manifests.IMMUTABLE``, with the same sentence. The API server counts what a rule
may cost at worst, from the bounds of the schema, so that rules about long texts are kept short.
"""

from headrace.api.manifest import MANAGED_BY_HEADRACE
from headrace.api.manifest_fields import LABEL_KEY
from headrace.api.manifest_model import DIGITS, RANDOM, STDLIB, ModelConfig
from headrace.api.model_choice import presets_of
from headrace.api.models import PRESETS, Family
from headrace.api.variables import RESERVED_VARIABLES, VARIABLES_OF_TORCHRUN
from operators.crds.plan_rules import RULES_OF_EACH_PLAN, RULES_OF_PLANS
from operators.crds.rule import NAMED, Elsewhere, Never, Rule, Rules, kept

MANAGERS = (MANAGED_BY_HEADRACE, "kueue.x-k8s.io/multikueue")
"""Who may run a job; of the second one, the copies in other clusters are run there."""

# The same as `headrace.api.credentials` finds, in the dialect of regular expressions that CEL has.
PASSWORD = (
    r"://[^/?#@:\s\[]*:([0-9]{1,5}@|([0-9]{0,5}[^0-9/?#,;\s'" + '"' + r"]|[0-9]{6})[^\s'" + '"]*@)'
)
_OPEN = (
    "has a password in a URL, where everybody who may see the job could read it; leave it out of "
    "the URL and give it to the ranks as a variable of spec.env that takes its value from a secret "
    "(valueFrom.secretKeyRef)"
)


def _text(words: str) -> str:
    """A literal of CEL that nothing in it can end."""
    return "r'''" + words + "'''"


def _among(words: frozenset[str] | tuple[str, ...]) -> str:
    ordered = sorted(words) if isinstance(words, frozenset) else words
    return "[" + ", ".join(f"'{word}'" for word in ordered) + "]"


def _one_of(*fields: str) -> str:
    return "[" + ", ".join(f"has(self.{field})" for field in fields) + "].filter(x, x).size() == 1"


_WITHOUT_PASSWORD = Rule(f"!self.matches({_text(PASSWORD)})", _OPEN)
_OPEN_PLACES = (
    "spec.model.weights",
    "spec.data.source",
    "spec.script.file",
    "spec.script.arguments[]",
    "spec.script.workingDirectory",
    "spec.command.program[]",
    "spec.command.workingDirectory",
    "spec.command.image",
    "spec.volumes[].mountPath",
    "spec.volumes[].hostPath.path",
    "spec.checkpoint.store",
    "spec.checkpoint.startFrom.store",
)

_PRESETS = " : ".join(
    f"self.name == '{family}' ? self.preset in {_among(presets_of(family))}" for family in Family
)
_PRESETS_IN_WORDS = "; ".join(f"{family}: {', '.join(presets_of(family))}" for family in Family)
_LEAST_VOCABULARY = " : ".join(
    f"self.model.name == '{family}' ? {PRESETS[f'{family}-tiny'].vocabulary}"
    for family in Family
    if family is not Family.VIT
)
_ANY_SIZE = " || ".join(
    f"has(self.config.{field.alias})" for field in ModelConfig.model_fields.values()
)
_OF_VIT = ("patchSize", "imageSize", "numChannels")
_OWN_TIES = frozenset({Family.GPT2, Family.LLAMA, Family.T5})


def _needs(kind: str, field: str, sentence: str) -> Rule:
    return Rule(f"!has(self.{kind}) || has(self.{field})", f"{field} {sentence}")


def _has_no(kind: str, field: str, sentence: str) -> Rule:
    return Rule(f"!has(self.{kind}) || !has(self.{field})", sentence, f".{field}", forbids=True)


_OF_A_COMMAND = "belongs to a built-in model or a script; a command reads its own arguments"
_IN_LINE_WITH_SIZE = "!has(self.training) || has(self.plans) || has(self.command) || "

_SPEC = (
    Rule(_one_of("model", "script", "command"), "wanted exactly one of model, script and command"),
    *(
        _needs("model", field, "is required with a built-in model")
        for field in ("data", "training", "checkpoint")
    ),
    *(
        _needs("script", field, "is required with a script, which is told all of it")
        for field in ("training", "checkpoint")
    ),
    _has_no("script", "data", "belongs to a built-in model; a script opens its own data"),
    *(_has_no("command", field, _OF_A_COMMAND) for field in ("data", "training", "plans")),
    _has_no(
        "command",
        "checkpoint",
        "Headrace cannot save the state of a program of yours; leave it out and let the program "
        "write its own checkpoints",
    ),
    Rule(
        "!has(self.command) || !has(self.accelerators.maximum) || "
        "self.accelerators.maximum == self.accelerators.minimum",
        "a command runs at one size: wanted the minimum or nothing",
        ".accelerators.maximum",
    ),
    Rule(
        _IN_LINE_WITH_SIZE + "self.training.globalBatchSize >= self.accelerators.minimum",
        "wanted a sample for each of at least the minimum of accelerators",
        ".training.globalBatchSize",
    ),
    Rule(
        _IN_LINE_WITH_SIZE + "(has(self.accelerators.maximum) && "
        "self.accelerators.maximum > self.accelerators.minimum) || "
        "self.training.globalBatchSize < self.accelerators.minimum || "
        "self.training.globalBatchSize % self.accelerators.minimum == 0",
        "wanted a multiple of the accelerators of this rigid job",
        ".training.globalBatchSize",
    ),
    Rule(
        "!has(self.model) || !has(self.data) || self.model.name != 'vit' || "
        f"self.data.source in {_among((DIGITS, RANDOM))}",
        f"vit learns from {DIGITS} or {RANDOM}",
        ".data.source",
    ),
    Rule(
        "!has(self.model) || !has(self.data) || self.model.name == 'vit' || "
        f"self.data.source != '{DIGITS}'",
        f"{DIGITS} are images; wanted {STDLIB}, {RANDOM} or a path of text",
        ".data.source",
    ),
    Rule(
        "!has(self.model) || !has(self.data) || self.model.name != 'vit' || "
        "!has(self.data.sequenceLength)",
        "vit reads images, which have no sequence length",
        ".data.sequenceLength",
        forbids=True,
    ),
    Rule(
        "!has(self.model) || !has(self.data) || self.model.name == 'vit' || "
        f"self.data.source == '{RANDOM}' || !has(self.model.config.vocabSize) || "
        f"self.model.config.vocabSize >= ({_LEAST_VOCABULARY} : 0)",
        "text is read as bytes, for which gpt2 and llama need 256 tokens, bert and roberta 259, "
        "t5 288",
        ".model.config.vocabSize",
    ),
    *RULES_OF_PLANS,
    kept(
        "model",
        "weights of another model cannot be continued",
        compared="self.model.name == oldSelf.model.name && "
        "self.model.config == oldSelf.model.config && "
        "has(self.model.weights) == has(oldSelf.model.weights) && "
        "(!has(self.model.weights) || self.model.weights == oldSelf.model.weights) && "
        # Who writes the preset that is taken anyway changes nothing.
        "(has(self.model.preset) ? self.model.preset : 'tiny') == "
        "(has(oldSelf.model.preset) ? oldSelf.model.preset : 'tiny')",
    ),
    kept("script", "another script is another job"),
    kept("command", "another program is another job"),
    kept("data", "the order of the data would no longer be the one it began with"),
    kept(
        "training",
        "initialisation and order of the data depend on the seed, and steps already done were "
        "counted in the globalBatchSize",
        compared="(self.training.seed == oldSelf.training.seed && "
        "self.training.globalBatchSize == oldSelf.training.globalBatchSize)",
    ),
    kept(
        "checkpoint",
        "its checkpoints would no longer be found in another store",
        compared="self.checkpoint.store == oldSelf.checkpoint.store",
    ),
    kept("managedBy", "another controller does not know what runs"),
)

RULES: Rules = {
    "": (NAMED,),
    "spec": _SPEC,
    "spec.managedBy": (
        Rule(f"self in {_among(MANAGERS)}", f"wanted {' or '.join(MANAGERS)}, or nothing"),
    ),
    "spec.accelerators": (
        Rule(
            "!has(self.maximum) || self.maximum >= self.minimum",
            "wanted at least the minimum of accelerators",
            ".maximum",
        ),
    ),
    "spec.accelerators.selector": (
        Rule(
            f"self.all(key, size(key) <= 317 && key.matches({_text(LABEL_KEY)}))",
            "wanted keys of labels: letters, digits, -, _ and ., beginning and ending with a "
            "letter or digit, and perhaps a domain and / before them",
        ),
    ),
    "spec.model": (
        Rule(
            "!has(self.weights) || !has(self.preset)",
            "wanted no preset beside weights, whose config.json has sizes",
            ".preset",
            forbids=True,
        ),
        Rule(
            f"!has(self.weights) || !({_ANY_SIZE})",
            "wanted no config beside weights, whose config.json has sizes",
            ".config",
            forbids=True,
        ),
        Rule(
            f"!has(self.preset) || ({_PRESETS} : true)",
            f"wanted a preset of the model's family ({_PRESETS_IN_WORDS})",
            ".preset",
        ),
        Rule(
            "self.name == 't5' || !has(self.config.numDecoderLayers)",
            "only t5 has layers of a decoder",
            ".config.numDecoderLayers",
            forbids=True,
        ),
        *(
            Rule(
                f"self.name == 'vit' || !has(self.config.{field})",
                f"only vit has {field}; the other families read tokens",
                f".config.{field}",
                forbids=True,
            )
            for field in _OF_VIT
        ),
        Rule(
            "!has(self.config.tieWordEmbeddings) || "
            f"self.name in {_among(frozenset(_OWN_TIES))} || "
            "self.config.tieWordEmbeddings == (self.name != 'vit')",
            "bert and roberta always tie their embeddings, vit never; wanted nothing or that",
            ".config.tieWordEmbeddings",
        ),
        Rule(
            "self.name == 'llama' || !has(self.config.numKeyValueHeads) || "
            "!has(self.config.numAttentionHeads) || "
            "self.config.numKeyValueHeads == self.config.numAttentionHeads",
            "only llama shares heads of keys and values; wanted as many as numAttentionHeads",
            ".config.numKeyValueHeads",
        ),
    ),
    "spec.script": (
        Rule(
            "has(self.workingDirectory) || self.file.startsWith('/')",
            "wanted an absolute path, or a workingDirectory beside it",
            ".file",
        ),
    ),
    "spec.env[]": (
        Rule("has(self.value) != has(self.valueFrom)", "wanted exactly one of value and valueFrom"),
        Rule(
            f"!(self.name in {_among(RESERVED_VARIABLES)}) && !self.name.startsWith('HEADRACE_')",
            "is set by Headrace for every rank; use another name",
            ".name",
            forbids=True,
        ),
        Rule(
            f"!(self.name in {_among(VARIABLES_OF_TORCHRUN)})",
            "is set by torchrun for every rank; use another name",
            ".name",
            forbids=True,
        ),
    ),
    "spec.volumes[]": (
        Rule(
            "has(self.persistentVolumeClaim) != has(self.hostPath)",
            "wanted exactly one of hostPath and persistentVolumeClaim",
        ),
    ),
    "spec.training": (
        Rule("self.warmupSteps <= self.steps", "wanted at most steps", ".warmupSteps"),
    ),
    "spec.plans": (
        Rule("self.all(plan, self.exists_one(other, other == plan))", "wanted every plan once"),
    ),
    "spec.plans[]": RULES_OF_EACH_PLAN,
    "spec.checkpoint": (kept("startFrom", "the job has begun already"),),
    "spec.retries": (
        Rule(
            "self.backoffMaxSeconds >= self.backoffSeconds",
            "wanted at least backoffSeconds",
            ".backoffMaxSeconds",
        ),
    ),
    # There may be 256 of these with 32,768 characters each.
    "spec.env[].value": Never(PASSWORD),
    **dict.fromkeys(_OPEN_PLACES, (_WITHOUT_PASSWORD,)),
}

ELSEWHERE = (
    Elsewhere(
        "the sizes of a model fit together, and with digits where it learns from them",
        "those that are left out are the preset's, which a rule of one field does not know",
        "headrace.api.models.ModelShape",
    ),
    Elsewhere(
        "a plan divides the model's heads and layers, and does not give replicas to the zb "
        "schedule of a model with tied embeddings",
        "the sizes are the preset's, or in the weights' folder",
        "headrace.api.feasible_plans.infeasible",
    ),
    Elsewhere(
        "labels are at most 64, annotations too and hold no password",
        "a rule sees of the metadata only the name",
        "headrace.api.manifest.Metadata",
    ),
    Elsewhere(
        "a quantity of bytes is at most 2^53",
        "what is a number or a text cannot be compared as both",
        "headrace.api.manifest_fields.quantity_bytes",
    ),
    Elsewhere(
        "fields that the runtime cannot honour: images, mounts, precisions, schemes of stores",
        "what a cluster can do is not part of the schema",
        "headrace.api.runtime.refusals",
    ),
    Elsewhere(
        "paths are absolute or URLs",
        "the command line makes relative ones absolute on a local cluster",
        "headrace.cli.apply.resolved",
    ),
    Elsewhere(
        "the queue takes jobs of this namespace and of whoever submits",
        "it is another object, and may change",
        "controlplane.edges.grpc_server.submission",
    ),
    Elsewhere(
        "a job that has ended changes in nothing but what is allowed then",
        "a rule about the spec does not see the status",
        "controlplane.edges.grpc_server.submission",
    ),
)
"""What is refused by whoever hands the job to the control plane, or by it, with a condition."""
