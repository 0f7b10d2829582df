"""The steps of `relay_models.slot_ops` between matrix products, each one Triton kernel.

What a step touches of a slot it reads once and where it lies: keys and values are never gathered, shifted or copied,
and only a chunk's own are written. Importing this needs Triton; `TRITON_INTERPRET=1` runs it without a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from relay_models.framing import SUBSAMPLING
from relay_models.slot_ops import MEL_TAIL, Norm, Rows, Stages

_QUERIES = 16  # rows of the smallest tile that a matrix unit takes


@triton.jit
def _norm(x, weight, bias, inside, width, EPS: tl.constexpr):
    """LayerNorm of `width` values [BLOCK], zero outside them."""
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    return centred * tl.rsqrt(variance + EPS) * weight + bias


@triton.jit
def _add_norm(x, y, out, outer, outer_bias, inner, inner_bias, scale, SIZE: tl.constexpr, BLOCK: tl.constexpr,
              TWICE: tl.constexpr, OUTER_EPS: tl.constexpr, INNER_EPS: tl.constexpr):  # fmt: skip
    """One token: x += scale * y, normed by `outer` if TWICE; out = inner norm of x."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < SIZE
    place = token * SIZE + columns
    added = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    added += scale * tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
    if TWICE:
        weight = tl.load(outer + columns, mask=inside, other=0.0).to(tl.float32)
        bias = tl.load(outer_bias + columns, mask=inside, other=0.0).to(tl.float32)
        added = _norm(added, weight, bias, inside, SIZE, OUTER_EPS)
    tl.store(x + place, added.to(x.dtype.element_ty), mask=inside)
    weight = tl.load(inner + columns, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(inner_bias + columns, mask=inside, other=0.0).to(tl.float32)
    normed = _norm(added, weight, bias, inside, SIZE, INNER_EPS)
    tl.store(out + place, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _append(qkv, cache, slots, positions, active, HEADS: tl.constexpr, DIM: tl.constexpr, SPAN: tl.constexpr,
            FRAMES: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One token: its keys and values to their place in the ring."""
    token = tl.program_id(0)
    row = token // FRAMES
    SIZE: tl.constexpr = HEADS * DIM
    slot = tl.load(slots + row).to(tl.int64)
    place = (tl.load(positions + row).to(tl.int32) + token % FRAMES) % SPAN
    advances = tl.load(active + row)
    columns = tl.arange(0, BLOCK)
    inside = columns < 2 * SIZE
    entry = tl.load(qkv + token.to(tl.int64) * (3 * SIZE) + SIZE + columns, mask=inside, other=0.0)
    target = (slot * 2 * HEADS + columns // DIM) * (SPAN * DIM) + place * DIM + columns % DIM
    tl.store(cache + target, entry.to(cache.dtype.element_ty), mask=inside & advances)


@triton.jit
def _attend(qkv, by_distance, constant, cache, out, slots, positions, counts, scale, HEADS: tl.constexpr,
            DIM: tl.constexpr, DIMS: tl.constexpr, SPAN: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr,
            QUERIES: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr):  # fmt: skip
    """One head of one row: all of a chunk's queries against the ring, which holds the chunk's own keys already."""
    row = tl.program_id(0) // HEADS
    head = tl.program_id(0) % HEADS
    tokens = tl.num_programs(0) // HEADS * FRAMES
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row).to(tl.int32)
    count = tl.load(counts + row).to(tl.int32)
    SIZE: tl.constexpr = HEADS * DIM

    dims = tl.arange(0, DIMS)
    in_head = dims < DIM
    frames = tl.arange(0, QUERIES)
    in_chunk = frames < FRAMES
    token = row * FRAMES + frames
    query_tile = in_chunk[:, None] & in_head[None, :]
    query_place = token[:, None] * (3 * SIZE) + (head * DIM + dims)[None, :]
    query = tl.load(qkv + query_place, mask=query_tile, other=0.0).to(cache.dtype.element_ty)
    ring = cache + (slot * 2 * HEADS + head) * (SPAN * DIM)
    last = position + FRAMES - 1

    # A running softmax (Milakov and Gimelshein 2018, arXiv 1805.02867) over tiles of the ring.
    highest = tl.full([QUERIES], -1.0e30, dtype=tl.float32)
    total = tl.zeros([QUERIES], dtype=tl.float32)
    mixed = tl.zeros([QUERIES, DIMS], dtype=tl.float32)
    for start in tl.range(0, SPAN, KEYS, num_stages=STAGES):
        places = start + tl.arange(0, KEYS)
        in_ring = places < SPAN
        # Place p holds the newest number that is p modulo the span; more is added for a remainder not negative.
        numbers = last - (last - places + (SPAN + KEYS) // SPAN * SPAN) % SPAN
        present = in_ring & (numbers >= 0) & (numbers < count)
        tile = places[:, None] * DIM + dims[None, :]
        # What a place holds that is not of this stream may be anything, and nothing times NaN is NaN.
        held = (present | (in_ring & (numbers >= position)))[:, None] & in_head[None, :]
        # Read once, they need not push weights and activations out of the cache.
        key = tl.load(ring + tile, mask=held, other=0.0, eviction_policy="evict_first")
        values = ring + HEADS * SPAN * DIM + tile
        value = tl.load(values, mask=held, other=0.0, eviction_policy="evict_first")
        distance = (position + frames)[:, None] - numbers[None, :]
        # A query outside its stream sees itself, or it would see nothing.
        visible = in_chunk[:, None] & in_ring[None, :] & (present[None, :] | (distance == 0))
        column = SPAN - 1 - distance
        shifts = tl.load(by_distance + (head * tokens + token)[:, None] * COLUMNS + column, mask=visible, other=0.0)
        constants = tl.load(constant + head * COLUMNS + column, mask=visible, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee")
        scores = tl.where(visible, (scores + shifts.to(tl.float32) + constants) * scale, -1.0e30)
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        weights = tl.where(visible, tl.exp(scores - higher[:, None]), 0.0)
        fade = tl.exp(highest - higher)
        total = total * fade + tl.sum(weights, axis=1)
        mixed = mixed * fade[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        highest = higher
    mixed = mixed / tl.where(in_chunk, total, 1.0)[:, None]
    out_place = token[:, None] * SIZE + (head * DIM + dims)[None, :]
    tl.store(out + out_place, mixed.to(out.dtype.element_ty), mask=query_tile)


@triton.jit
def _gated(gates, token, columns, inside, SIZE: tl.constexpr):
    """Gated linear unit of one token, in the type of the gates."""
    place = gates + token.to(tl.int64) * (2 * SIZE) + columns
    value = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(place + SIZE, mask=inside, other=0.0).to(tl.float32)
    return (value * tl.sigmoid(gate)).to(gates.dtype.element_ty)


@triton.jit
def _convolve(gates, tail, taps, bias, weight, norm_bias, out, slots, positions, counts, active, SIZE: tl.constexpr,
              BLOCK: tl.constexpr, FRAMES: tl.constexpr, PAST: tl.constexpr, HAS_BIAS: tl.constexpr,
              EPS: tl.constexpr):  # fmt: skip
    """One row: all channels of all frames of the chunk."""
    row = tl.program_id(0)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row).to(tl.int32)
    count = tl.load(counts + row).to(tl.int32)
    advances = tl.load(active + row)
    columns = tl.arange(0, BLOCK)
    inside = columns < SIZE
    ring = tail + slot * PAST * SIZE + columns
    norm_weight = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    norm_shift = tl.load(norm_bias + columns, mask=inside, other=0.0).to(tl.float32)
    for frame in tl.static_range(FRAMES):
        mixed = tl.zeros([BLOCK], dtype=tl.float32)
        if HAS_BIAS:
            mixed += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
        for tap in tl.static_range(PAST + 1):
            if frame + tap < PAST:
                number = position + frame + tap - PAST
                place = (position + frame + tap) % PAST
                x = tl.load(ring + place * SIZE, mask=inside & (number >= 0), other=0.0).to(tl.float32)
            else:
                x = _gated(gates, row * FRAMES + frame + tap - PAST, columns, inside, SIZE).to(tl.float32)
                x = tl.where(position + frame + tap - PAST < count, x, 0.0)
            mixed += x * tl.load(taps + tap * SIZE + columns, mask=inside, other=0.0).to(tl.float32)
        normed = _norm(tl.where(inside, mixed, 0.0), norm_weight, norm_shift, inside, SIZE, EPS)
        place = (row * FRAMES + frame).to(tl.int64) * SIZE + columns
        tl.store(out + place, (normed * tl.sigmoid(normed)).to(out.dtype.element_ty), mask=inside)
    # Only now: a chunk's own frames take the places of those that it has looked back to.
    for frame in tl.static_range(FRAMES):
        if frame >= FRAMES - PAST:
            x = _gated(gates, row * FRAMES + frame, columns, inside, SIZE)
            x = tl.where(position + frame < count, x, 0.0)
            place = ring + (position + frame) % PAST * SIZE
            tl.store(place, x.to(tail.dtype.element_ty), mask=inside & advances)


@triton.jit
def _first_stages(features, tail, first_taps, first_bias, taps, bias, out, slots, positions, mels, CHUNK: tl.constexpr,
                  MELS: tl.constexpr, TAIL: tl.constexpr, BINS: tl.constexpr, OUT_TIMES: tl.constexpr,
                  OUT_BINS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One time and bin of the second stage's depthwise part: the nine outputs of the first that it needs, at once."""
    bin2 = tl.program_id(0) % OUT_BINS
    time2 = tl.program_id(0) // OUT_BINS % OUT_TIMES
    row = tl.program_id(0) // (OUT_BINS * OUT_TIMES)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row).to(tl.int32)
    count = tl.load(mels + row).to(tl.int32)
    channels = tl.arange(0, BLOCK)[None, :]
    inside = channels < CHANNELS
    features += row.to(tl.int64) * (CHUNK * MELS)
    tail += slot * (TAIL * MELS)

    tap = tl.arange(0, 16)  # nine of them count
    time1 = 2 * time2 - 1 + tap // 3
    bin1 = 2 * bin2 - 2 + tap % 3
    number1 = position * 4 - 3 + time1
    ok = (tap < 9) & (number1 >= 0) & (number1 < count // 2 + 1) & (bin1 >= 0) & (bin1 < BINS)
    x = tl.zeros([16, BLOCK], dtype=tl.float32)
    x += tl.load(first_bias + channels, mask=inside, other=0.0).to(tl.float32)
    for first_tap in tl.static_range(9):
        time = 2 * time1 - 1 + first_tap // 3
        bin = 2 * bin1 - 2 + first_tap % 3
        number = position * 8 - 7 + time
        there = ok & (number >= 0) & (number < count) & (bin >= 0) & (bin < MELS)
        new = tl.load(features + time * MELS + bin, mask=there & (time >= 0), other=0.0).to(tl.float32)
        old = tl.load(tail + (time + TAIL) * MELS + bin, mask=there & (time < 0), other=0.0).to(tl.float32)
        weight = tl.load(first_taps + first_tap * CHANNELS + channels, mask=inside, other=0.0).to(tl.float32)
        x += (new + old)[:, None] * weight
    x = tl.where(ok[:, None], tl.maximum(x, 0.0), 0.0)
    weights = tl.load(taps + tap[:, None] * CHANNELS + channels, mask=(tap < 9)[:, None] & inside, other=0.0)
    x *= weights.to(tl.float32)
    mixed = tl.sum(x, axis=0)[None, :] + tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    place = tl.program_id(0).to(tl.int64) * CHANNELS + channels
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _last_stage(x, tail, taps, bias, out, slots, positions, mels, TIMES: tl.constexpr, BINS: tl.constexpr,
                OUT_TIMES: tl.constexpr, OUT_BINS: tl.constexpr, CHANNELS: tl.constexpr,
                BLOCK: tl.constexpr):  # fmt: skip
    """One time and bin of the third stage's depthwise part."""
    bin3 = tl.program_id(0) % OUT_BINS
    time3 = tl.program_id(0) // OUT_BINS % OUT_TIMES
    row = tl.program_id(0) // (OUT_BINS * OUT_TIMES)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row).to(tl.int32)
    count = (tl.load(mels + row).to(tl.int32) // 2 + 1) // 2 + 1
    channels = tl.arange(0, BLOCK)
    inside = channels < CHANNELS
    new_frames = x + row.to(tl.int64) * (TIMES * BINS * CHANNELS) + channels
    old_frame = tail + slot * (BINS * CHANNELS) + channels
    mixed = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    for tap in tl.static_range(9):
        time2 = 2 * time3 - 1 + tap // 3
        bin2 = 2 * bin3 - 2 + tap % 3
        number2 = position * 2 - 1 + time2
        ok = (number2 >= 0) & (number2 < count) & (bin2 >= 0) & (bin2 < BINS)
        new = tl.load(new_frames + (time2 * BINS + bin2) * CHANNELS, mask=inside & ok & (time2 >= 0), other=0.0)
        value = new.to(tl.float32)
        if tap < 3:
            value += tl.load(old_frame + bin2 * CHANNELS, mask=inside & ok & (time2 < 0), other=0.0).to(tl.float32)
        mixed += value * tl.load(taps + tap * CHANNELS + channels, mask=inside, other=0.0).to(tl.float32)
    place = tl.program_id(0).to(tl.int64) * CHANNELS + channels
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=inside)


class TritonOps:
    """`Ops` in fused kernels.

    Args:
        keys: Keys that a program of attention takes at a time, a power of two from 16 on.
        warps: Warps of such a program.
        stages: Tiles of keys and values that it has on their way at once.
    """

    name = "triton"

    def __init__(self, *, keys: int = 32, warps: int = 4, stages: int = 2) -> None:
        self._keys = keys
        self._warps = warps
        self._stages = stages

    def first_stages(self, features: Tensor, tail: Tensor, stages: Stages, rows: Rows) -> Tensor:
        """See `Ops.first_stages`."""
        count, chunk, mel_bins = features.shape
        taps, bias = stages.depthwise[0]
        channels = taps.shape[1]
        out = stages.first.new_empty(count, chunk // 4, stages.bins[2], channels)
        _first_stages[(count * chunk // 4 * stages.bins[2],)](
            features.contiguous(), tail, stages.first, stages.first_bias, taps, bias, out, rows.slots, rows.positions,
            rows.mels, CHUNK=chunk, MELS=mel_bins, TAIL=MEL_TAIL, BINS=stages.bins[1], OUT_TIMES=chunk // 4,
            OUT_BINS=stages.bins[2], CHANNELS=channels, BLOCK=triton.next_power_of_2(channels), num_warps=1,
        )  # fmt: skip
        return out

    def last_stage(self, x: Tensor, tail: Tensor, stages: Stages, rows: Rows) -> Tensor:
        """See `Ops.last_stage`."""
        count, times, bins, channels = x.shape
        taps, bias = stages.depthwise[1]
        out = x.new_empty(count, times // 2, stages.bins[3], channels)
        _last_stage[(count * times // 2 * stages.bins[3],)](
            x, tail, taps, bias, out, rows.slots, rows.positions, rows.mels, TIMES=times, BINS=bins,
            OUT_TIMES=times // 2, OUT_BINS=stages.bins[3], CHANNELS=channels, BLOCK=triton.next_power_of_2(channels),
            num_warps=1,
        )  # fmt: skip
        return out

    def add_norm(self, x: Tensor, y: Tensor, scale: float, norm: Norm) -> Tensor:
        """See `Ops.add_norm`."""
        return self._add(x, y, scale, norm, norm, twice=False)

    def add_norm_twice(self, x: Tensor, y: Tensor, scale: float, outer: Norm, inner: Norm) -> Tensor:
        """See `Ops.add_norm_twice`."""
        return self._add(x, y, scale, outer, inner, twice=True)

    @staticmethod
    def _add(x: Tensor, y: Tensor, scale: float, outer: Norm, inner: Norm, *, twice: bool) -> Tensor:
        tokens, size = x.shape
        out = torch.empty_like(x)
        block = triton.next_power_of_2(size)
        _add_norm[(tokens,)](
            x, y, out, outer.weight, outer.bias, inner.weight, inner.bias, scale, SIZE=size, BLOCK=block, TWICE=twice,
            OUTER_EPS=outer.eps, INNER_EPS=inner.eps, num_warps=_warps(block),
        )  # fmt: skip
        return out

    def attend(self, qkv: Tensor, by_distance: Tensor, constant: Tensor, cache: Tensor, rows: Rows) -> Tensor:
        """See `Ops.attend`."""
        _, _, heads, span, head_dim = cache.shape
        out = qkv.new_empty(len(qkv), heads * head_dim)
        block = triton.next_power_of_2(2 * heads * head_dim)
        _append[(len(qkv),)](
            qkv, cache, rows.slots, rows.positions, rows.active, HEADS=heads, DIM=head_dim, SPAN=span,
            FRAMES=rows.frames, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip
        _attend[(len(rows.slots) * heads,)](
            qkv, by_distance, constant, cache, out, rows.slots, rows.positions, rows.counts, head_dim**-0.5,
            HEADS=heads, DIM=head_dim, DIMS=max(triton.next_power_of_2(head_dim), 16), SPAN=span, FRAMES=rows.frames,
            COLUMNS=constant.shape[1], QUERIES=max(triton.next_power_of_2(rows.frames), _QUERIES), KEYS=self._keys,
            STAGES=self._stages, num_warps=self._warps,
        )  # fmt: skip
        return out

    def convolve(
        self, gates: Tensor, tail: Tensor, taps: Tensor, bias: Tensor | None, norm: Norm, rows: Rows
    ) -> Tensor:
        """See `Ops.convolve`."""
        past, size = tail.shape[1:]
        out = gates.new_empty(len(gates), size)
        block = triton.next_power_of_2(size)
        _convolve[(len(rows.slots),)](
            gates, tail, taps, taps if bias is None else bias, norm.weight, norm.bias, out, rows.slots, rows.positions,
            rows.counts, rows.active, SIZE=size, BLOCK=block, FRAMES=rows.frames, PAST=past, HAS_BIAS=bias is not None,
            EPS=norm.eps, num_warps=_warps(block),
        )  # fmt: skip
        return out


def _warps(block: int) -> int:
    """Warps for a program over so many columns: eight each thread, which is one load of 16 bytes in bfloat16."""
    return min(max(block // 256, 1), 8)


assert SUBSAMPLING == 8, "the kernels number mel frames by eights"
