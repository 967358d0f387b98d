"""Table 2 of the Rubick paper (MLSys 2025), with what its artifact computes it from.

Times are milliseconds. Forward times and measured steps are those of the artifact's validation
(artifact/71_performance_model); the errors are the paper's, in percent.
"""

from dataclasses import dataclass

from controlplane.rubick.published import PublishedModel, PublishedParameters

Alpha = float | tuple[float, ...]
"""The same for all configurations of a cell, or of each."""

VIT = PublishedModel(
    PublishedParameters(
        2.118846909, 1.623044014, 1e-8, 2.626794104, 7.53543924, 16.6507081, 18.44163169
    ),
    mebi_parameters=85_952_456 / 2**20,
    pcie=64,
    nvlink=34.057018390132875,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: a model and a plan at several numbers of GPUs.

    Attributes:
        model: By the artifact's name.
        plan: By the paper's.
        parameters: Trained weights.
        pcie: GB/s.
        nvlink: GB/s.
        forward: Of each configuration, as it is supplied.
        measured: Of each.
        average: Of errors.
        largest: Of them.
        alphas: Multipliers of forward, backward and communication.
        is_divided: Whether the optimizer is computed as divided; small ZeRO-DP models are not.
        split: Of 3D plans: pipeline, tensor, nodes, GPUs of a node.
        samples: Global batch.
        sequence_times_hidden: Of 3D plans.
        layers: Of 3D plans.
    """

    model: str
    plan: str
    parameters: int
    pcie: float
    nvlink: float
    forward: tuple[float, ...]
    measured: tuple[float, ...]
    average: float
    largest: float
    alphas: tuple[Alpha, Alpha, Alpha] = (1.0, 1.0, 1.0)
    is_divided: bool = False
    split: tuple[tuple[int, int, int, int], ...] = ()
    samples: int = 16
    sequence_times_hidden: int = 0
    layers: int = 0


def _of(whole: float, *parts: float) -> tuple[float, ...]:
    return tuple(whole / part for part in parts)


_VIT = ("vit", 85_952_456, 64.0, 34.057018390132875)
_ROBERTA = ("roberta", 355_412_057, 7.9107385391936935, 50.303643979067175)
_BERT = ("bert", 336_297_858, 64.0, 119.4879085392442)
_T5 = ("t5", 1_240_809_472, 64.0, 88.56587629910638)
_GPT2 = ("gpt2", 1_557_686_400, 59.720964902105614, 144.8376373230351)
_LLAMA = ("llama7B", 6_738_423_808, 0.96, 150.0)


def _cell(
    known: tuple[str, int, float, float],
    plan: str,
    forward: tuple[float, ...],
    measured: tuple[float, ...],
    errors: tuple[float, float],
    **more: object,
) -> Cell:
    model, parameters, pcie, nvlink = known
    return Cell(model, plan, parameters, pcie, nvlink, forward, measured, *errors, **more)  # type: ignore[arg-type]


_VIT_FORWARD = _of(40, 1, 2, 4, 8)
_BERT_FORWARD = _of(225, 1, 1.8, 3.24, 5.832)
_HALVED = _of(480, 2, 2, 4, 8)  # as half a batch on one GPU
_CHECKPOINTED = (2.0, 1.0, 1.0)
_T5_SIZES = {"sequence_times_hidden": 1024 * 512, "layers": 32}
_GPT2_SIZES = {"sequence_times_hidden": 1600 * 1024, "layers": 24}
_LLAMA_SIZES = {"sequence_times_hidden": 4096 * 2048, "layers": 32, "samples": 8}

TABLE_2 = (
    _cell(_VIT, "DP", _VIT_FORWARD, (153.97, 88, 62, 49), (3.63, 6.83)),
    _cell(_VIT, "GC", _VIT_FORWARD, (195, 112, 73, 54.005), (2.59, 6.19), alphas=_CHECKPOINTED),
    _cell(_VIT, "ZeRO-DP+GA", _VIT_FORWARD, (144.93, 85, 65.97, 51), (4.23, 6.67)),
    _cell(_VIT, "ZeRO-Offload", _VIT_FORWARD, (233, 139, 99, 83.99), (3.00, 8.32)),
    _cell(_ROBERTA, "DP", _HALVED, (705.5, 705, 389, 234.15), (2.21, 4.37)),
    _cell(
        _ROBERTA,
        "GC",
        _of(480, 1, 2, 4, 8),
        (1760, 926, 503, 296),
        (3.36, 4.29),
        alphas=_CHECKPOINTED,
    ),
    _cell(_ROBERTA, "ZeRO-DP+GA", _HALVED, (707.9, 698, 374, 234), (3.59, 6.71)),
    _cell(_ROBERTA, "ZeRO-Offload", _HALVED, (1130, 921.2, 544, 365), (7.42, 10.44)),
    _cell(_BERT, "DP", _BERT_FORWARD, (654.5, 365, 225.65, 157), (5.27, 8.32)),
    _cell(
        _BERT, "GC", _BERT_FORWARD, (868, 481, 279.65, 180), (4.90, 7.27), alphas=(1.8, 1.0, 1.0)
    ),
    _cell(_BERT, "ZeRO-DP+GA", _BERT_FORWARD, (668, 382, 228.65, 155), (3.70, 6.90)),
    _cell(_BERT, "ZeRO-Offload", _BERT_FORWARD, (1019.7, 580, 376, 271.64), (6.37, 8.62)),
    _cell(
        _T5,
        "TP+PP",
        (163, 285, 497),
        (658.04, 1064, 1712.5),
        (3.18, 8.24),
        split=((2, 8, 2, 8), (4, 4, 4, 4), (8, 2, 8, 2)),
        **_T5_SIZES,
    ),
    _cell(
        _T5,
        "DP+TP+PP",
        (134, 163, 197, 285, 497),
        (615, 710, 815, 976.9, 1711),
        (2.41, 9.55),
        split=((1, 8, 1, 8), (2, 8, 2, 8), (4, 8, 4, 8), (4, 4, 4, 4), (8, 2, 8, 2)),
        **_T5_SIZES,
    ),
    _cell(
        _T5,
        "ZeRO-DP+GA",
        _of(338, 1, 2, 4, 8),
        (1132.8, 721, 536, 463),
        (6.71, 9.55),
        is_divided=True,
    ),
    _cell(
        _T5,
        "ZeRO-Offload+GC",
        _of(338, 1, 2, 4, 8),
        (2411, 1431, 886, 653),
        (4.37, 6.34),
    ),
    _cell(
        _GPT2,
        "TP+PP",
        (290, 920, 920),
        (1068, 3089.3, 3120),
        (2.39, 3.08),
        split=((4, 5, 4, 5), (4, 1, 4, 1), (8, 1, 8, 1)),
        **_GPT2_SIZES,
    ),
    _cell(
        _GPT2,
        "DP+TP+PP",
        (290,) * 5,
        (1052.5, 1066, 1080.7, 1070, 1078),
        (2.80, 4.15),
        split=((1, 5, 1, 5), (3, 5, 3, 5), (2, 5, 2, 5), (4, 5, 4, 5), (6, 5, 6, 5)),
        **_GPT2_SIZES,
    ),
    _cell(
        _GPT2,
        "ZeRO-DP+GA",
        _of(1100, 8, 8, 4, 8),
        (3617, 1880, 982, 496.76),
        (2.52, 3.86),
        alphas=((8.0, 4.0, 1.0, 1.0),) * 3,
        is_divided=True,
    ),
    _cell(
        _GPT2,
        "ZeRO-Offload+GC",
        _of(1100, 1, 2, 4, 4),
        (5230, 2995, 1567.3, 1203),
        (5.52, 8.90),
    ),
    _cell(
        _LLAMA,
        "TP+PP",
        (380, 494, 433, 740, 1435),
        (1569, 1871, 1665.7, 2641, 4817),
        (1.90, 2.90),
        split=((2, 8, 2, 8), (8, 8, 8, 8), (4, 8, 4, 8), (4, 4, 4, 4), (8, 2, 8, 2)),
        **_LLAMA_SIZES,
    ),
    _cell(
        _LLAMA,
        "DP+TP+PP",
        (300, 270, 243, 534),
        (1130, 945, 859, 1648),
        (4.70, 9.45),
        split=((1, 8, 2, 8), (1, 8, 4, 8), (1, 8, 8, 8), (2, 4, 4, 4)),
        **_LLAMA_SIZES,
    ),
    _cell(
        _LLAMA,
        "ZeRO-Offload+GC",
        _of(3, 1, 2, 4, 8),
        (57879, 30072, 16098, 9400),
        (4.09, 6.38),
        alphas=_CHECKPOINTED,
    ),
)
