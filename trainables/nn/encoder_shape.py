"""The sizes of an encoder, from which its tensors and its parameter counts follow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Everything that fixes an encoder's tensors and arithmetic."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    type_vocab_size: int  # 0: the model knows no token types
    embedding_size: int  # ELECTRA's small models embed narrower than they compute
    task_type_vocab_size: int = 0  # ERNIE's, whose texts are all of task 0; 0: the model knows no tasks
    position_offset: int = 0  # RoBERTa counts positions from pad_token_id + 1
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    has_pooler: bool = True
    pooling: str = "pooler"  # what its checkpoint was trained to be read by; "first" stands in where no pooler is

    @property
    def max_length(self) -> int:
        """The longest sequence its positions allow, in word pieces."""
        return self.max_positions - self.position_offset

    @property
    def embedding_params(self) -> int:
        """All embeddings, their LayerNorm, and the projection to D where there is one."""
        rows = self.vocab_size + self.max_positions + self.type_vocab_size + self.task_type_vocab_size + 2
        project = (self.embedding_size + 1) * self.hidden_size if self.embedding_size != self.hidden_size else 0
        return rows * self.embedding_size + project

    @property
    def layer_params(self) -> int:
        """One Transformer layer: 4 D^2 + 2 D I + 9 D + I."""
        width, inner = self.hidden_size, self.intermediate_size
        return 4 * width**2 + 2 * width * inner + 9 * width + inner

    @property
    def layernorm_params(self) -> int:
        """Every LayerNorm: 4 D a layer and 2 E for the embeddings'."""
        return 4 * self.num_layers * self.hidden_size + 2 * self.embedding_size

    @property
    def pooler_params(self) -> int:
        """D^2 + D where the model has a pooler."""
        return self.hidden_size**2 + self.hidden_size if self.has_pooler else 0
