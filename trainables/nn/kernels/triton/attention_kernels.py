"""The kernels of self-attention in Triton; `trainables.nn.kernels.triton.attention` launches them.

A program has a head of a sequence, or a share of its blocks where sequences are long. Forwards it goes through the keys
a block at a time and keeps of each query the logarithm of its sum of powers (FlashAttention-2, Dao 2023), from which
probabilities are computed again backwards. Nothing is summed across programs, so results do not vary.

Arguments: `query`, `key`, `value` and their gradients are rows whose step from one to the next is given; the rows of
`out` and of its gradient, `grad`, follow one upon the other. `logsums` and `sums` are float32 (H, Q), where Q is N or,
where only first tokens ask (`FIRST`), S. `starts` and `lengths` are those of `Sequences`, `seeds`, `steps` and `rates`
those of `DropoutKeys`, with `per_trial` sequences a trial.
"""

from __future__ import annotations

import triton
import triton.language as tl

from trainables.nn.kernels.triton.philox import attention_factors

# Numbers that change from step to step or from layer to layer: for none of their values is a kernel compiled anew.
_VARYING = ("num_rows", "per_trial", "site")


@triton.jit(do_not_specialize=_VARYING)
def forward(
    query, key, value, out, logsums,
    starts, lengths, seeds, steps, rates, num_rows, per_trial, site, query_step, key_step, value_step,
    SCALE: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, FIRST: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    sequence, head, start, length, asked, asking = _part(starts, lengths, HEADS, FIRST)
    if DROPS:
        trial = sequence // per_trial
        place = sequence % per_trial
        seed, step, rate = tl.load(seeds + trial), tl.load(steps + trial), tl.load(rates + trial)
    query += _offset(asked, query_step, head, WIDTH)
    key += _offset(start, key_step, head, WIDTH)
    value += _offset(start, value_step, head, WIDTH)
    if not FIRST:
        _clear_around(out, HEADS * WIDTH, starts, lengths, num_rows, HEADS, WIDTH, PADDED)
    out += _offset(asked, HEADS * WIDTH, head, WIDTH)
    logsums += _kept(asked, num_rows, head, HEADS, FIRST)
    for first_query in range(tl.program_id(1) * QUERIES, asking, tl.num_programs(1) * QUERIES):
        queries = first_query + tl.arange(0, QUERIES)
        q = _rows(query, query_step, queries, asking, WIDTH, PADDED)
        largest = tl.full((QUERIES,), float("-inf"), tl.float32)
        total = tl.zeros((QUERIES,), tl.float32)
        attended = tl.zeros((QUERIES, PADDED), tl.float32)
        for first_key in range(0, length, KEYS):
            keys = first_key + tl.arange(0, KEYS)
            k = _rows(key, key_step, keys, length, WIDTH, PADDED)
            v = _rows(value, value_step, keys, length, WIDTH, PADDED)
            scores = _scores(q, k, keys, length, SCALE)
            larger = tl.maximum(largest, tl.max(scores, 1))
            powers = tl.exp2(scores - larger[:, None])
            shrunk = tl.exp2(largest - larger)
            total = total * shrunk + tl.sum(powers, 1)
            if DROPS:
                powers *= attention_factors(queries, first_key, head, place, site, step, seed, rate, QUERIES, KEYS)
            attended = attended * shrunk[:, None] + tl.dot(powers.to(v.dtype), v, input_precision="ieee")
            largest = larger
        # Queries without keys get zeros, and probabilities of 0.
        largest = tl.where(total == 0, 0.0, largest)
        total = tl.where(total == 0, 1.0, total)
        _store(out, HEADS * WIDTH, queries, asking, attended / total[:, None], WIDTH, PADDED)
        tl.store(logsums + queries, largest + tl.log2(total), mask=queries < asking)


@triton.jit(do_not_specialize=_VARYING)
def backward_queries(
    query, key, value, out, grad, logsums, sums, grad_query,
    starts, lengths, seeds, steps, rates, num_rows, per_trial, site, query_step, key_step, value_step, grad_query_step,
    SCALE: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, FIRST: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    """Also keeps, for `backward_keys`, the sum of each query's probabilities times their gradients."""
    sequence, head, start, length, asked, asking = _part(starts, lengths, HEADS, FIRST)
    if DROPS:
        trial = sequence // per_trial
        place = sequence % per_trial
        seed, step, rate = tl.load(seeds + trial), tl.load(steps + trial), tl.load(rates + trial)
    query += _offset(asked, query_step, head, WIDTH)
    key += _offset(start, key_step, head, WIDTH)
    value += _offset(start, value_step, head, WIDTH)
    out += _offset(asked, HEADS * WIDTH, head, WIDTH)
    grad += _offset(asked, HEADS * WIDTH, head, WIDTH)
    logsums += _kept(asked, num_rows, head, HEADS, FIRST)
    sums += _kept(asked, num_rows, head, HEADS, FIRST)
    if not FIRST:
        _clear_around(grad_query, grad_query_step, starts, lengths, num_rows, HEADS, WIDTH, PADDED)
    grad_query += _offset(asked, grad_query_step, head, WIDTH)
    for first_query in range(tl.program_id(1) * QUERIES, asking, tl.num_programs(1) * QUERIES):
        queries = first_query + tl.arange(0, QUERIES)
        q = _rows(query, query_step, queries, asking, WIDTH, PADDED)
        g = _rows(grad, HEADS * WIDTH, queries, asking, WIDTH, PADDED)
        o = _rows(out, HEADS * WIDTH, queries, asking, WIDTH, PADDED)
        logsum = tl.load(logsums + queries, mask=queries < asking, other=0.0)
        along = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
        tl.store(sums + queries, along, mask=queries < asking)
        grad_q = tl.zeros((QUERIES, PADDED), tl.float32)
        for first_key in range(0, length, KEYS):
            keys = first_key + tl.arange(0, KEYS)
            k = _rows(key, key_step, keys, length, WIDTH, PADDED)
            v = _rows(value, value_step, keys, length, WIDTH, PADDED)
            probabilities = tl.exp2(_scores(q, k, keys, length, SCALE) - logsum[:, None])
            grad_scores = tl.dot(g, tl.trans(v), input_precision="ieee")
            if DROPS:
                grad_scores *= attention_factors(queries, first_key, head, place, site, step, seed, rate, QUERIES, KEYS)
            grad_scores = probabilities * (grad_scores - along[:, None])
            grad_q += tl.dot(grad_scores.to(k.dtype), k, input_precision="ieee")
        _store(grad_query, grad_query_step, queries, asking, grad_q * SCALE, WIDTH, PADDED)


@triton.jit(do_not_specialize=_VARYING)
def backward_keys(
    query, key, value, grad, logsums, sums, grad_query, grad_key, grad_value,
    starts, lengths, seeds, steps, rates, num_rows, per_trial, site, query_step, key_step, value_step, grad_query_step,
    grad_key_step, grad_value_step,
    SCALE: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, FIRST: tl.constexpr, DROPS: tl.constexpr, ALONE: tl.constexpr,
):  # fmt: skip
    """Where a block holds all keys of a sequence (`ALONE`), also the gradients of its queries."""
    sequence, head, start, length, asked, asking = _part(starts, lengths, HEADS, FIRST)
    if DROPS:
        trial = sequence // per_trial
        place = sequence % per_trial
        seed, step, rate = tl.load(seeds + trial), tl.load(steps + trial), tl.load(rates + trial)
    query += _offset(asked, query_step, head, WIDTH)
    key += _offset(start, key_step, head, WIDTH)
    value += _offset(start, value_step, head, WIDTH)
    grad += _offset(asked, HEADS * WIDTH, head, WIDTH)
    logsums += _kept(asked, num_rows, head, HEADS, FIRST)
    _clear_around(grad_key, grad_key_step, starts, lengths, num_rows, HEADS, WIDTH, PADDED)
    _clear_around(grad_value, grad_value_step, starts, lengths, num_rows, HEADS, WIDTH, PADDED)
    grad_key += _offset(start, grad_key_step, head, WIDTH)
    grad_value += _offset(start, grad_value_step, head, WIDTH)
    if ALONE:
        if not FIRST:
            _clear_around(grad_query, grad_query_step, starts, lengths, num_rows, HEADS, WIDTH, PADDED)
        grad_query += _offset(asked, grad_query_step, head, WIDTH)
    else:
        sums += _kept(asked, num_rows, head, HEADS, FIRST)
    # At least once: the first token of a sequence without rows still has a gradient, of zeros.
    for first_key in range(tl.program_id(1) * KEYS, tl.maximum(length, 1), tl.num_programs(1) * KEYS):
        keys = first_key + tl.arange(0, KEYS)
        k = _rows(key, key_step, keys, length, WIDTH, PADDED)
        v = _rows(value, value_step, keys, length, WIDTH, PADDED)
        grad_k = tl.zeros((KEYS, PADDED), tl.float32)
        grad_v = tl.zeros((KEYS, PADDED), tl.float32)
        for first_query in range(0, asking, QUERIES):
            queries = first_query + tl.arange(0, QUERIES)
            q = _rows(query, query_step, queries, asking, WIDTH, PADDED)
            g = _rows(grad, HEADS * WIDTH, queries, asking, WIDTH, PADDED)
            logsum = tl.load(logsums + queries, mask=queries < asking, other=0.0)
            probabilities = tl.exp2(_scores(q, k, keys, length, SCALE) - logsum[:, None])
            dropped = probabilities
            if DROPS:
                dropped *= attention_factors(queries, first_key, head, place, site, step, seed, rate, QUERIES, KEYS)
            grad_scores = dropped * tl.dot(g, tl.trans(v), input_precision="ieee")
            along = tl.sum(grad_scores, 1) if ALONE else tl.load(sums + queries, mask=queries < asking, other=0.0)
            grad_scores = (grad_scores - probabilities * along[:, None]).to(q.dtype)
            grad_v += tl.dot(tl.trans(dropped.to(g.dtype)), g, input_precision="ieee")
            grad_k += tl.dot(tl.trans(grad_scores), q, input_precision="ieee")
            if ALONE:
                grad_q = tl.dot(grad_scores, k, input_precision="ieee")
                _store(grad_query, grad_query_step, queries, asking, grad_q * SCALE, WIDTH, PADDED)
        _store(grad_key, grad_key_step, keys, length, grad_k * SCALE, WIDTH, PADDED)
        _store(grad_value, grad_value_step, keys, length, grad_v, WIDTH, PADDED)


@triton.jit
def _part(starts, lengths, HEADS: tl.constexpr, FIRST: tl.constexpr):
    """This program's sequence and head, first row and number of keys, and of queries."""
    sequence = tl.program_id(0) // HEADS
    head = tl.program_id(0) % HEADS
    start = tl.load(starts + sequence)
    length = tl.load(lengths + sequence)
    if FIRST:
        return sequence, head, start, length, sequence, 1
    else:
        return sequence, head, start, length, start, length


@triton.jit
def _offset(first_row, step, head, WIDTH: tl.constexpr):
    return first_row.to(tl.int64) * step + head * WIDTH


@triton.jit
def _kept(asked, num_rows, head, HEADS: tl.constexpr, FIRST: tl.constexpr):
    """Where numbers (H, Q) begin for this program's queries."""
    if FIRST:
        return head.to(tl.int64) * (tl.num_programs(0) // HEADS) + asked
    else:
        return head.to(tl.int64) * num_rows + asked


@triton.jit
def _rows(head_rows, step, places, count, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows of a head, with zeros for those past the last."""
    columns = tl.arange(0, PADDED)
    mask = (places < count)[:, None] & (columns < WIDTH)[None, :]
    return tl.load(head_rows + places[:, None] * step + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _store(head_rows, step, places, count, rows, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    columns = tl.arange(0, PADDED)
    mask = (places < count)[:, None] & (columns < WIDTH)[None, :]
    tl.store(head_rows + places[:, None] * step + columns[None, :], rows.to(head_rows.dtype.element_ty), mask=mask)


@triton.jit
def _clear_around(
    rows, step, starts, lengths, num_rows, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr
):
    """Zeros for the head's rows between the sequence before this one and this one, and past the last sequence."""
    sequence, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    is_later = sequence > 0
    end = tl.load(starts + sequence - 1, mask=is_later, other=0) + tl.load(
        lengths + sequence - 1, mask=is_later, other=0
    )
    if tl.program_id(1) == 0:
        _clear(rows, step, end, tl.load(starts + sequence), head, WIDTH, PADDED)
        if sequence == tl.num_programs(0) // HEADS - 1:
            end = tl.load(starts + sequence) + tl.load(lengths + sequence)
            _clear(rows, step, end, num_rows, head, WIDTH, PADDED)


@triton.jit
def _clear(rows, step, first, last, head, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    rows += _offset(first, step, head, WIDTH)
    for place in range(0, last - first, 16):
        places = place + tl.arange(0, 16)
        _store(rows, step, places, last - first, tl.zeros((16, PADDED), tl.float32), WIDTH, PADDED)


@triton.jit
def _scores(q, k, keys, length, SCALE: tl.constexpr):
    """Logarithms to base 2 of powers, -inf for what is past the last key."""
    BASE: tl.constexpr = 1.4426950408889634  # log2(e)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (SCALE * BASE)
    return tl.where((keys < length)[None, :], scores, float("-inf"))
