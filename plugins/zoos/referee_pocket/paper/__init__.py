"""The paper's tables and figures in the pocket world: the bench `paper`, its claims, and the page that tells them.

    referee bench paper:tables=4+9 --out runs/paper          # a few tables; the same folder takes the others, later
    python -m referee_pocket.paper film runs/paper           # runs whose steps are kept: for figures and smoothness
    python -m referee_pocket.paper smooth runs/paper         # Propositions 3.1 and 3.2
    python -m referee_pocket.paper page runs/paper --out docs/paper.md

"The paper" is "Referee Can Play: An Alternative Approach to Conditional Generation via Model Inversion" (ICML 2024,
arXiv 2402.16305). Tables and claims are data, in `tables`; how a claim is decided is in `verdicts`.
"""
