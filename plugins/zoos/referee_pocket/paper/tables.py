"""The paper's tables that have a counterpart in the pocket world, with its numbers (arXiv 2402.16305).

A method has one name and one layer in all tables, so that its pictures are drawn once.
"""

from __future__ import annotations

from referee.bench.contract import Layer
from referee_pocket.paper.claims import ATTRIBUTES, COMPLEX, SPATIAL, Beside, Number, Part, Row, Table
from referee_pocket.paper.methods import (
    ALONE,
    BARE,
    COIN,
    FEW,
    KINDS,
    MAIN,
    METHOD,
    PLAIN,
    SCORE,
    SDS,
    STRONG,
    beats,
    by_kind,
    equals,
    row,
    rules,
)  # fmt: skip

TABLE_1 = Table(
    "1", "Table 1: inversion alone, with and without augmentation",
    "With augmentations, inverting the referee alone draws what the prompt asks for far better than without.",
    {ATTRIBUTES: MAIN},
    (
        row("no augmentation", BARE, by_kind(".6561", ".5078", ".5371")),
        row("30 augmentations", ALONE, by_kind(".8639", ".6686", ".7311"), "10 views"),
    ),
    (*KINDS, Beside("all of these")),
    tuple(beats(ALONE, BARE, column) for column in ("colours", "shapes", "textures", "binding")),
)  # fmt: skip

TABLE_2 = Table(
    "2", "Table 2 and figure 3: losses on the plain picture and on its views",
    "Without augmentations the loss is met on the plain picture and not on its views, which is an adversarial picture; "
    "with them it is met on both.",
    {ATTRIBUTES: MAIN},
    (
        row("no augmentation", BARE, {"plain ITM": "2e-3", "plain caption": "3.28", "augmented ITM": "5.65",
                                       "augmented caption": "4.66"}),
        row("30 augmentations", ALONE, {"plain ITM": "1e-5", "plain caption": "3.08", "augmented ITM": "2e-3",
                                         "augmented caption": "3.30"}, "10 views"),
        row("figure 3's third row: with the prior", METHOD, {}),
    ),
    (
        Beside("plain ITM", (ATTRIBUTES, "itm_plain")), Beside("plain caption", (ATTRIBUTES, "cg_plain")),
        Beside("augmented ITM", (ATTRIBUTES, "itm_augmented")),
        Beside("augmented caption", (ATTRIBUTES, "cg_augmented")),
    ),
    (
        Part(f"ITM of `{BARE}` is higher on views than on the plain picture",
             Number(BARE, "itm_augmented"), Number(BARE, "itm_plain"), margin=COIN),
        Part(f"the caption loss of `{BARE}` is higher on views than on the plain picture",
             Number(BARE, "cg_augmented"), Number(BARE, "cg_plain"), margin=0.1),
        Part(f"on views, ITM of `{BARE}` is higher than that of `{ALONE}`",
             Number(BARE, "itm_augmented"), Number(ALONE, "itm_augmented"), margin=COIN),
        Part(f"on views, ITM of `{ALONE}` is below ln 2, that of a referee that tosses a coin",
             COIN, Number(ALONE, "itm_augmented")),
    ),
)  # fmt: skip

TABLE_3 = Table(
    "3", "Table 3: all methods, all suites",
    "Referee and prior together draw what the prompt asks for better than plain samples and than the prior's "
    "distillation alone: attributes, places and complex prompts.",
    {ATTRIBUTES: MAIN, SPATIAL: MAIN, COMPLEX: MAIN},
    (
        row("SD 1.4, plain", PLAIN, by_kind(".3765", ".3576", ".4156", ".1246", ".3079", ".3080"),
             "the pocket prior"),
        row("SDS", SDS, by_kind(".3793", ".3914", ".4321", ".1261", ".3038", ".2773")),
        row("BLIP-2 inversion", ALONE, by_kind(".8639", ".6686", ".7311", ".1008", ".3260", ".3379")),
        row("the method", METHOD, by_kind(".8162", ".6209", ".7202", ".1506", ".3215", ".3529")),
        Row("DALL-E 3", "", by_kind(".8110", ".6750", ".8070"), why="a closed model; it does not know this world"),
    ),
    (*KINDS, Beside("spatial", (SPATIAL, "relation")), Beside("non-spatial", None),
     Beside("complex", (COMPLEX, "right"))),
    (
        *(beats(METHOD, other) for other in (PLAIN, SDS)),
        *(beats(METHOD, other, "relation", SPATIAL) for other in (PLAIN, SDS)),
        *(beats(METHOD, other, "right", COMPLEX) for other in (PLAIN, SDS)),
        equals(SDS, PLAIN),
        beats(ALONE, PLAIN, aside=True),
        beats(ALONE, METHOD, aside=True),
        beats(PLAIN, ALONE, "relation", SPATIAL, aside=True),
        beats(METHOD, ALONE, "right", COMPLEX, aside=True),
    ),
    untestable="Non-spatial prompts are of actions, which this world does not have.",
)  # fmt: skip

TABLE_4 = Table(
    "4", "Table 4: the average of the latent",
    "Restarting from the average of the latent draws better than no average, and than an average that is taken once.",
    {ATTRIBUTES: FEW},
    (
        Row("no average", "ema-none", {"score": "67.43"}, rules(restart_every=0)),
        Row("ordinary average", "ema-ordinary", {"score": "67.22"}, rules(restart_from=290, restart_every=300),
            "the average takes the latent's place once, as the referees end; the prior's tail follows"),
        row("restarts from 40, each 60", METHOD, {"score": "72.47"}, "75 and 110"),
        Row("from 60, each 40", "restart-60-40", {"score": "71.86"}, rules(restart_from=112, restart_every=75),
            "112 and 75"),
        Row("from 80, each 20", "restart-80-20", {"score": "71.77"}, rules(restart_from=150, restart_every=37),
            "150 and 37"),
        Row("from 20, each 60", "restart-20-60", {"score": "71.24"}, rules(restart_from=37, restart_every=112),
            "37 and 112"),
    ),
    SCORE,
    (
        beats(METHOD, "ema-none"),
        beats(METHOD, "ema-ordinary"),
        equals("ema-ordinary", "ema-none"),
        *(beats(f"restart-{grid}", "ema-none", aside=True) for grid in ("60-40", "80-20", "20-60")),
    ),
    units="Iteration numbers times 1.875; each row has as many restarts as the paper's: 2, 3, 4, 3.",
)  # fmt: skip


def _steady(cfg: float) -> Layer:
    return {"rules": {"prior_weight": 32}, "prior": {"options": {"cfg": cfg}}}


TABLE_5 = Table(
    "5", "Tables 5 and 8: weight and guidance of the prior",
    "A prior of strong guidance whose weight falls over the run is better than one of constant weight, whatever its "
    "guidance, and a constant one should not be guided weakly.",
    {ATTRIBUTES: FEW},
    (
        Row("800, CFG 10", "steady-cfg-10", {"score": "56.52"}, _steady(1.67), "32, CFG 1.67"),
        Row("800, CFG 20", "steady-cfg-20", {"score": "62.74"}, _steady(3.33), "32, CFG 3.33"),
        Row("800, CFG 30", "steady-cfg-30", {"score": "62.18"}, _steady(5.0), "32, CFG 5"),
        row("800 to 400, CFG 30", METHOD, {"score": "69.43"}, "32 to 16, CFG 5"),
    ),
    SCORE,
    (
        *(beats(METHOD, f"steady-cfg-{cfg}") for cfg in (10, 20, 30)),
        *(beats(f"steady-cfg-{cfg}", "steady-cfg-10") for cfg in (20, 30)),
    ),
    units="w2 = 800 is 32 here, CFG is divided by 6.",
)  # fmt: skip

TABLE_6 = Table(
    "6", "Table 6: weight of the referees, and their steps",
    "A push twice as long as the prior's pull, and one of the referee's steps for each of the prior's, is best.",
    {ATTRIBUTES: FEW},
    (
        Row("w1 = 1", "w1-1", {"score": "59.97"}, rules(referee_weight=1)),
        row("w1 = 2", METHOD, {"score": "67.43"}),
        Row("w1 = 3", "w1-3", {"score": "62.36"}, rules(referee_weight=3)),
        Row("two steps, w1 = 1", "", {"score": "61.55"}, why="Adam divides a constant w1 out: as the next row"),
        Row("two steps, w1 = 2", "two-steps", {"score": "64.29"},
            {"rules": {"steps": 600, "tail": 20, "prior_lr": "cosine(0.06, 0.025)", "noise": "cosine(0.0707, 0.00707)",
                       "ema_decay": 0.9747, "restart_from": 150, "restart_every": 220}},
            "said in settings: 600 steps at full lr, of the prior at half of it; noise, average and restarts to match"),
        *(Row(f"by SGD, w1 = {w1}", f"sgd-w1-{w1}", {}, rules(update="sgd", referee_weight=w1),
              "not in the paper: without Adam w1 is a length") for w1 in (1, 2, 3)),
    ),
    SCORE,
    (
        beats(METHOD, "w1-1"), beats(METHOD, "w1-3"), beats(METHOD, "two-steps"),
        equals(METHOD, "w1-1"),
        beats("sgd-w1-2", "sgd-w1-1", aside=True), beats("sgd-w1-2", "sgd-w1-3", aside=True),
    ),
    units="w1 is a ratio, the same here. Under Adam, which the paper's algorithm has, a constant w1 does nothing.",
)  # fmt: skip

TABLE_7 = Table(
    "7", "Table 7: plain samples of stronger guidance",
    "Guiding plain samples four times as strongly helps a little, and leaves them far behind the method.",
    {ATTRIBUTES: MAIN},
    (
        row("CFG 7.5", PLAIN, by_kind(".3632", ".3490", ".3985"), "CFG 4"),
        row("CFG 30", STRONG, by_kind(".4012", ".4018", ".4386"), "CFG 16"),
        row("the method (table 3)", METHOD, by_kind(".8162", ".6209", ".7202")),
    ),
    (*KINDS, Beside("all of these")),
    (
        *(beats(STRONG, PLAIN, column) for column in ("colours", "shapes", "textures")),
        *(beats(METHOD, STRONG, column) for column in ("colours", "shapes", "textures", "binding")),
    ),
    units="The usual guidance of each prior, 7.5 and 4, and four times that.",
)  # fmt: skip

TABLE_9 = Table(
    "9", "Table 9: noise on the latent",
    "Noise of a middling deviation is best: less of it draws a little worse, more of it much worse.",
    {ATTRIBUTES: FEW},
    (
        Row("0.05", "noise-05", {"score": "68.21"}, rules(noise="cosine(0.025, 0.0025)"), "0.025 to 0.0025"),
        Row("0.1", "noise-10", {"score": "70.88"}, rules(noise="cosine(0.05, 0.005)"), "0.05 to 0.005"),
        row("0.2", METHOD, {"score": "71.04"}, "0.1 to 0.01"),
        Row("0.3", "noise-30", {"score": "64.57"}, rules(noise="cosine(0.15, 0.015)"), "0.15 to 0.015"),
    ),
    SCORE,
    (beats(METHOD, "noise-05"), beats(METHOD, "noise-30"), equals(METHOD, "noise-10")),
    units="Multiples of the preset's noise, which falls: 0.2 is 0.1 to 0.01.",
)  # fmt: skip
