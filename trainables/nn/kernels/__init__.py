"""The arithmetic of a training step over word pieces laid end to end: each kernel in torch, and in C for a CPU.

N = K*M rows: each of the K trials of a pack has a segment of M rows, and a row is one word piece. The tail of a segment
may be dummy rows, which belong to no sequence. S = K*B sequences, trial after trial.
"""
