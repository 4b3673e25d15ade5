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
class LibraryModel:
    """A model that transformers' own classes compute whole, of which nothing here knows the layers."""

    config: str  # its Hugging Face configuration, as JSON
    prefix: str  # of its tensors in a checkpoint that has a head
    params: int  # without a pooler
    embedding_params: int  # of its words


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Everything that fixes an encoder's tensors and arithmetic.

    Layers are numbered from 0 at the bottom. A layer is one pass through attention and feed-forward; where several
    layers have the same weights (`weights_of`, ALBERT), those weights are counted once.
    """

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
    embedding_dropout: float | None = None  # None: as hidden_dropout
    head_dropout: float | None = None  # of what the head reads; None: as hidden_dropout
    has_pooler: bool = True
    embeds_positions: bool = True  # by where in its text a word piece stands
    relative: RelativeBias | Disentangled | None = None  # what scores have added by distance
    pooling: str = "pooler"  # what its checkpoint was trained to be read by; "first" stands in where no pooler is
    is_pre_norm: bool = False  # LayerNorms before the sub-layers, none before the first, and one after the last layer
    is_gated: bool = False  # feed-forward is W2 (f(U x) * G x), U and G stacked in one product
    has_attention_bias: bool = True
    has_feedforward_bias: bool = True
    has_down_bias: bool | None = None  # of feed-forward's second product; None: as has_feedforward_bias
    drops_gated: bool = False  # whether feed-forward drops out before its second product too
    has_norm_bias: bool = True
    thetas: tuple[float, ...] = ()  # the base of each layer's rotary positions; (): it has none
    windows: tuple[int, ...] = ()  # how far each layer's tokens see to either side, 0: all; (): all do
    has_projection: bool = False  # of embeddings to D even where they are as wide
    library: LibraryModel | None = None  # what computes everything, where that is not the encoder itself
    weights_of: tuple[int, ...] = ()  # which set of weights each layer has, counted from 0; (): each its own

    @property
    def max_length(self) -> int:
        """The longest sequence its positions allow, in word pieces."""
        return self.max_positions - self.position_offset

    @property
    def projects_embeddings(self) -> bool:
        """Whether a product lies between embeddings and layers."""
        return self.has_projection or self.embedding_size != self.hidden_size

    @property
    def up_width(self) -> int:
        """What feed-forward's first product gives: I, or 2I where it is gated."""
        return self.intermediate_size * (2 if self.is_gated else 1)

    @property
    def biases_down(self) -> bool:
        """Whether feed-forward's second product has a bias."""
        return self.has_feedforward_bias if self.has_down_bias is None else self.has_down_bias

    def weights_of_layer(self, layer: int) -> int:
        """The set of weights a layer has."""
        return self.weights_of[layer] if self.weights_of else layer

    def owner_of(self, layer: int) -> int:
        """The lowest layer that has the same weights, by whose number they are named."""
        return self.weights_of.index(self.weights_of[layer]) if self.weights_of else layer

    def num_distinct_layers(self, first: int = 0) -> int:
        """How many sets of weights the layers from `first` up have: L - first where each has its own."""
        return len({self.weights_of_layer(layer) for layer in range(first, self.num_layers)})

    @property
    def embedding_params(self) -> int:
        """All embeddings, those of distances too, their LayerNorms, and the projection to D where there is one."""
        if self.library is not None:
            return self.library.embedding_params
        rows = self.vocab_size + (self.max_positions if self.embeds_positions else 0)
        rows += self.type_vocab_size + self.task_type_vocab_size
        project = (self.embedding_size + 1) * self.hidden_size if self.projects_embeddings else 0
        distances = self.relative.table_params(self.hidden_size, self.num_heads) if self.relative else 0
        return rows * self.embedding_size + self._norm_params(self.embedding_size) + project + distances

    @property
    def layer_params(self) -> int:
        """One Transformer layer with both its LayerNorms: 4 D^2 + 2 D I + 9 D + I in BERT.

        Where positions are relative, D^2 + D for each projection of distances.
        """
        width, inner = self.hidden_size, self.intermediate_size
        products = 4 * width**2 + (self.up_width + inner) * width
        distances = self.relative.layer_params(width) if self.relative else 0
        return products + self._layer_biases + 2 * self._norm_params(width) + distances

    def layers_params(self, first: int = 0) -> int:
        """The layers from `first` up, and the LayerNorm above the last where there is one.

        Of a model in transformers' own classes, all but the embeddings of words.
        """
        if self.library is not None:
            return self.library.params - self.library.embedding_params
        # In a pre-norm encoder the first layer lacks one of its LayerNorms, and the one above the last is beside them.
        norms = (first > 0) * self._norm_params(self.hidden_size) if self.is_pre_norm else 0
        return self.num_distinct_layers(first) * self.layer_params + norms

    @property
    def layernorm_params(self) -> int:
        """Every LayerNorm: two a layer, the embeddings' and that of distances; 4 D L + 2 E in BERT."""
        distances = self._norm_params(self.hidden_size) if self.relative and self.relative.has_layernorm else 0
        return self.norms_params() + self._norm_params(self.embedding_size) + distances

    def norms_params(self, first: int = 0) -> int:
        """The LayerNorms of the layers from `first` up, the one above the last included where there is one."""
        number = 2 * self.num_distinct_layers(first) + (self.is_pre_norm and first > 0)
        return number * self._norm_params(self.hidden_size)

    @property
    def bias_params(self) -> int:
        """Every bias: 7 D + I a layer in BERT, and those of the embeddings, of distances and of the pooler."""
        width = self.hidden_size
        norms = self.layernorm_params // 2 if self.has_norm_bias else 0
        project = width if self.projects_embeddings else 0
        distances = self.num_layers * self.relative.num_projections * width if self.relative else 0
        layers = self.num_distinct_layers() * self._layer_biases
        return layers + norms + project + width * self.has_pooler + distances

    @property
    def pooler_params(self) -> int:
        """D^2 + D where the model has a pooler."""
        return self.hidden_size**2 + self.hidden_size if self.has_pooler else 0

    @property
    def params(self) -> int:
        """The whole encoder."""
        return self.embedding_params + self.layers_params() + self.pooler_params

    @property
    def _layer_biases(self) -> int:
        attention = 4 * self.hidden_size if self.has_attention_bias else 0
        up = self.up_width if self.has_feedforward_bias else 0
        return attention + up + (self.hidden_size if self.biases_down else 0)

    def _norm_params(self, width: int) -> int:
        return width * (2 if self.has_norm_bias else 1)
