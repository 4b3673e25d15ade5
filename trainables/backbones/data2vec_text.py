"""Data2Vec for text (Baevski et al. 2022): RoBERTa's layers, trained to predict hidden states instead of words."""

from __future__ import annotations

from trainables.backbones import roberta

MODEL_TYPES = ("data2vec-text",)
PREFIX = "data2vec_text."
TENSORS = roberta.TENSORS
shape = roberta.shape
