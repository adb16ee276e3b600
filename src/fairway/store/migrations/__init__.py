"""One revision per step of the tables, in two chains: `expand` adds (at open), `contract` rewrites (when asked).

A file is named NNNN_format_N.py (expand, revision "NNNN") or NNNNc_format_N.py (contract, revision "NNNNc"), N being
the format it leads to. What was released is never edited.
"""
