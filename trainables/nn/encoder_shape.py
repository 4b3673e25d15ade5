"""The sizes of an encoder, from which its tensors and its parameter counts follow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RelativeBias:
    """A number for each head and bucket of distances, which every layer adds to its scores."""

    num_rows: int  # of the table, which may be more than there are buckets
    num_buckets: int = 32
    max_distance: int = 128  # from which on all share a bucket

    def table_params(self, width: int, num_heads: int) -> int:
        return self.num_rows * num_heads

    def layer_params(self, width: int) -> int:
        return 0

    @property
    def has_layernorm(self) -> bool:
        return False

    @property
    def num_projections(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Disentangled:
    """An embedding of each distance, which every layer projects to what its queries and keys are multiplied with."""

    span: int  # half the rows of the table: for distances of either sign
    max_distance: int  # of distances in buckets, the farthest that is told from nearer ones; 0: no buckets
    content_to_position: bool
    position_to_content: bool
    shares_projections: bool  # distances go through a layer's projections of keys and queries
    has_layernorm: bool

    @property
    def num_parts(self) -> int:
        """Of a score: that of the contents, and those of positions."""
        return 1 + self.content_to_position + self.position_to_content

    @property
    def num_projections(self) -> int:
        """Products of a layer that are there for distances alone."""
        return self.has_projection("key") + self.has_projection("query")

    def has_projection(self, part: str) -> bool:
        """Whether a layer projects distances to "key" or "query" by weights that are there for that alone."""
        is_used = self.content_to_position if part == "key" else self.position_to_content
        return is_used and not self.shares_projections

    def table_params(self, width: int, num_heads: int) -> int:
        return 2 * self.span * width + 2 * width * self.has_layernorm

    def layer_params(self, width: int) -> int:
        return self.num_projections * (width**2 + width)


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
    embeds_positions: bool = True  # by where in its text a word piece stands
    relative: RelativeBias | Disentangled | None = None  # what scores have added by distance
    pooling: str = "pooler"  # what its checkpoint was trained to be read by; "first" stands in where no pooler is

    @property
    def max_length(self) -> int:
        """The longest sequence its positions allow, in word pieces."""
        return self.max_positions - self.position_offset

    @property
    def embedding_params(self) -> int:
        """All embeddings, those of distances too, their LayerNorms, and the projection to D where there is one."""
        positions = self.max_positions if self.embeds_positions else 0
        rows = self.vocab_size + positions + self.type_vocab_size + self.task_type_vocab_size + 2
        project = (self.embedding_size + 1) * self.hidden_size if self.embedding_size != self.hidden_size else 0
        distances = self.relative.table_params(self.hidden_size, self.num_heads) if self.relative else 0
        return rows * self.embedding_size + project + distances

    @property
    def layer_params(self) -> int:
        """One Transformer layer: 4 D^2 + 2 D I + 9 D + I, and D^2 + D for each projection of distances."""
        width, inner = self.hidden_size, self.intermediate_size
        distances = self.relative.layer_params(width) if self.relative else 0
        return 4 * width**2 + 2 * width * inner + 9 * width + inner + distances

    @property
    def layernorm_params(self) -> int:
        """Every LayerNorm: 4 D a layer, 2 E for the embeddings', and 2 D where those of distances have one."""
        distances = 2 * self.hidden_size if self.relative and self.relative.has_layernorm else 0
        return 4 * self.num_layers * self.hidden_size + 2 * self.embedding_size + distances

    @property
    def distance_biases(self) -> int:
        """The biases among the weights of relative positions."""
        if self.relative is None:
            return 0
        return (self.num_layers * self.relative.num_projections + self.relative.has_layernorm) * self.hidden_size

    @property
    def pooler_params(self) -> int:
        """D^2 + D where the model has a pooler."""
        return self.hidden_size**2 + self.hidden_size if self.has_pooler else 0
