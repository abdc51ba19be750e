"""For every rule a node just inside and one just outside the limits that a profile gives it."""

import numpy as np
from limitnodes import (
    MAP,
    all_quantized,
    argmax,
    axes_of,
    base,
    box,
    clip,
    computed,
    cut,
    even,
    fixed,
    joined,
    kernel_of,
    lanes,
    last_output,
    line,
    moved,
    operand,
    other,
    padded,
    product,
    quantized,
    recurrent,
    reduction,
    resized,
    same,
    second_input,
    shaped,
    split,
    summed,
    tall_map,
    tensor,
    two,
    weight,
    window,
)

RULES = {
    "activation_types": lambda op, w, n: (
        all_quantized(base(op, w), n["types"][0]),
        all_quantized(base(op, w), other(n["types"])),
    ),
    "int8_activations": lambda op, w, n: (all_quantized(base(op, w)), all_quantized(base(op, w), "uint8")),
    "symmetric_activations": lambda op, w, n: (all_quantized(base(op, w)), all_quantized(base(op, w), zero=1)),
    "argmax_depth": lambda op, w, n: tuple(argmax(d) for d in (n["depth"], n["depth"] + 1)),
    "average_buffer": lambda op, w, n: tuple(  # 7 x 7 x 32 + 821 x (31 + 7) = 32,766
        window(op, k=(7, 7), x=(1, 8, 40, (n["size"] - 1568) // 38 + more)) for more in (0, 1)
    ),
    "average_counts_padding": lambda op, w, n: tuple(window(op, p=(1, 1, 1, 1), count_include_pad=c) for c in (1, 0)),
    "axis_one_of": lambda op, w, n: (
        axes_of(op, n["axes"][-1]),
        axes_of(op, next(a for a in (2, 0, 4) if a not in n["axes"])),
    ),
    "batch_one": lambda op, w, n: (base(op, w), shaped(base(op, w), 2, *base(op, w).inputs[0].shape[1:])),
    "max_batch": lambda op, w, n: tuple(
        shaped(base(op, w), b, *base(op, w).inputs[0].shape[1:]) for b in (n["batch"], n["batch"] + 1)
    ),
    "bias_types": lambda op, w, n: tuple(
        operand(base(op, w), 2, quantized(weight("b", 8), kind)) for kind in (n["types"][0], "int16")
    ),
    "broadcast_per_channel": lambda op, w, n: (two(op, second=(1, 8, 1, 1)), two(op, second=(1, 8, 1, 4))),
    "clip_limits": lambda op, w, n: (clip(n["ranges"][0]), clip("0..5.5")),
    "concat_aligned": lambda op, w, n: tuple(
        joined((1, n["channels"] - 1, 1, 1), (1, 1 + more, 1, 1)) for more in (0, 1)
    ),
    "concat_constant": lambda op, w, n: (joined(constant=0), joined(constant=1)),
    "constant_operands": lambda op, w, n: (base(op, w), computed(base(op, w))),
    "depth_multiplier": lambda op, w, n: tuple(
        operand(base(op, w), 1, weight("w", 8 * by, 1, 3, 3)) for by in (n["multiplier"], n["multiplier"] + 1)
    ),
    "dilation_needs_kernel_one": lambda op, w, n: (
        window(op, w, k=(1, 1), d=(2, 2)),
        window(op, w, k=(2, 1), d=(2, 2)),
    ),
    "dilation_needs_stride_one": lambda op, w, n: (window(op, w, d=(2, 2)), window(op, w, d=(2, 2), s=(2, 2))),
    "elu_alpha_one": lambda op, w, n: (same(op, *MAP), same(op, *MAP, alpha=1.5)),
    "equal_shapes": lambda op, w, n: (two(op), two(op, second=(1, 8, 1, 1))),
    "euclidean_norm": lambda op, w, n: (same(op, *MAP, p=2), same(op, *MAP, p=1)),
    "exact_dimensions": lambda op, w, n: (base(op, w), cut(source=(1, 8, 4))),
    "explicit_padding": lambda op, w, n: (window(op), window(op, auto_pad="VALID")),
    "gather_index_rank": lambda op, w, n: (
        base(op),
        operand(base(op), 1, weight("i", *[1] * (n["rank"] + 1), dtype=np.int64)),
    ),
    "group_one": lambda op, w, n: (window(op, w), window(op, w, group=2)),
    "group_one_or_depthwise": lambda op, w, n: (window(op, w, group=8), window(op, w, group=2)),
    "half_pixel_factor": lambda op, w, n: tuple(
        resized((f, f), "linear half_pixel") for f in (n["factor"], 2 * n["factor"])
    ),
    "kernel_width": lambda op, w, n: tuple(window(op, w, k=(3, k)) for k in (n["width"], n["width"] + 1)),
    "large_stride": lambda op, w, n: tuple(
        window(op, w, s=(s, s), p=(1, 1, 1, 1)) for s in (n["stride"], n["stride"] + 1)
    ),
    "leading_ones": lambda op, w, n: (base(op), moved(op, (1, 8, 1), (1, 8), fixed("a", 2))),
    "linear_resize_size": lambda op, w, n: tuple(
        resized((1, 1), "linear half_pixel", (1, 8, 4, size)) for size in (n["size"], n["size"] + 1)
    ),
    "lrn_window": lambda op, w, n: (same(op, *MAP, size=n["sizes"][-1]), same(op, *MAP, size=n["sizes"][-1] + 1)),
    "max_columns": lambda op, w, n: tuple(product(op, w, columns=c) for c in (n["columns"], n["columns"] + 1)),
    "max_dilated_kernel": lambda op, w, n: tuple(window(op, w, d=(d, 1)) for d in (n["size"] - 3, n["size"] - 2)),
    "max_dilation": lambda op, w, n: tuple(
        window(op, w, k=(1, 1) if op == "ConvTranspose" else (3, 3), d=(d, d))
        for d in (n["dilation"], n["dilation"] + 1)
    ),
    "max_dimension": lambda op, w, n: tuple(shaped(base(op, w), 1, 8, 4, d) for d in (n["size"], n["size"] + 1)),
    "max_dimensions": lambda op, w, n: tuple(
        shaped(base(op, w), *[1] * d) for d in (n["dimensions"], n["dimensions"] + 1)
    ),
    "max_groups": lambda op, w, n: tuple(
        window(op, w, x=(1, g, 16, 16), m=g, group=g) for g in (n["groups"], n["groups"] + 1)
    ),
    "max_inner_size": lambda op, w, n: tuple(product(op, w, inner=i) for i in (n["size"], n["size"] + 1)),
    "max_input_width": lambda op, w, n: tuple(window(op, w, x=(1, 8, 16, x)) for x in (n["width"], n["width"] + 1)),
    "max_kernel": lambda op, w, n: tuple(
        tall_map(op, k) if op.startswith("Global") else kernel_of(op, w, k) for k in (n["height"], n["height"] + 1)
    ),
    "max_kernel_size": lambda op, w, n: tuple(kernel_of(op, w, k, 1) for k in (n["size"], n["size"] + 1)),
    "max_map": lambda op, w, n: tuple(window(op, x=(1, 8, 4, s), k=(1, 1)) for s in (n["size"], n["size"] + 1)),
    "max_map_area": lambda op, w, n: tuple(window(op, x=(1, 8, 1, s), k=(1, 1)) for s in (n["area"], n["area"] + 1)),
    "max_output_channels": lambda op, w, n: tuple(window(op, w, m=m) for m in (n["channels"], n["channels"] + 1)),
    "max_padding": lambda op, w, n: tuple(
        window(op, w, k=(min(max(p + 1, 3), 255), 3), p=(p, 0, 0, 0)) for p in (n["padding"], n["padding"] + 1)
    ),
    "max_rank": lambda op, w, n: (shaped(base(op, w), 1, *[2] * n["rank"]), shaped(base(op, w), 2, *[2] * n["rank"])),
    "max_stride": lambda op, w, n: tuple(
        window(op, w, k=even(s), s=(s, s), x=(1, 8, 32, 32)) for s in (n["stride"], n["stride"] + 1)
    ),
    "max_tensor_bytes": lambda op, w, n: tuple(shaped(base(op, w), 1, *box(b)) for b in (n["bytes"] - 1, n["bytes"])),
    "min_inputs": lambda op, w, n: tuple(joined(count=c) for c in (n["inputs"], n["inputs"] - 1)),
    "no_ceil_mode": lambda op, w, n: (window(op, ceil_mode=0), window(op, ceil_mode=1)),
    "no_peepholes": lambda op, w, n: (recurrent(), recurrent(peepholes=True)),
    "one_direction": lambda op, w, n: (recurrent(), recurrent(direction="reverse")),
    "pad_keeps_batch": lambda op, w, n: (padded(), padded(batch=1)),
    "pad_modes": lambda op, w, n: (padded(n["modes"][-1]), padded("edge")),
    "pad_reflection": lambda op, w, n: tuple(padded("reflect", (1, 8, 4, x)) for x in (n["width"], n["width"] + 1)),
    "pad_zero": lambda op, w, n: (padded(), padded(value=1)),
    "padded_kernel": lambda op, w, n: tuple(window(op, k=(k, k), p=(1, 1, 1, 1)) for k in (n["size"], n["size"] + 1)),
    "padding_below_kernel": lambda op, w, n: tuple(window(op, w, p=(p, 0, 0, 0)) for p in (2, 3)),
    "per_tensor_weights": lambda op, w, n: (
        operand(base(op, w), 1, quantized(base(op, w).inputs[1])),
        operand(base(op, w), 1, quantized(base(op, w).inputs[1], axis=0)),
    ),
    "pool_buffer": lambda op, w, n: tuple(lanes(op, n, k) for k in (3, 4)),
    "pow_exponent": lambda op, w, n: tuple(moved(op, MAP, MAP, weight("e", value=e)) for e in (n["exponents"][-1], 7)),
    "prelu_innermost": lambda op, w, n: (base(op), moved(op, MAP, MAP, weight("s", 1, 4, 1))),
    "reduce_depth_multiple": lambda op, w, n: tuple(
        reduction(op, (1,), (1, c, 4, 4)) for c in (2 * n["multiple"], 2 * n["multiple"] + 1)
    ),
    "reduce_keeps_batch": lambda op, w, n: (reduction(op), reduction(op, (0,))),
    "reduced_axis_size": lambda op, w, n: tuple(reduction(op, (2,), (1, 8, s, 4)) for s in (n["size"] - 1, n["size"])),
    "reduced_depth": lambda op, w, n: (reduction(op, (1,), (1, 8, 4, 1)), reduction(op, (1,))),
    "reduced_elements": lambda op, w, n: tuple(
        reduction(op, (2, 3, 4), (1, 8, n["int8"] >> 20, 1024, 1024 + more)) for more in (0, 1)
    ),
    "requantizes": lambda op, w, n: (base(op), operand(base(op), 0, tensor("x", *MAP))),
    "resize_by_scales": lambda op, w, n: (resized(), resized(sizes=True)),
    "resize_factors": lambda op, w, n: (resized([n["factors"][-1]] * 2), resized([n["factors"][-1] + 1] * 2)),
    "resize_factors_or_point": lambda op, w, n: (resized([n["factors"][-1]] * 2), resized([n["factors"][-1] + 1] * 2)),
    "resize_modes": lambda op, w, n: (resized(mode=n["modes"][-1]), resized(mode="cubic half_pixel")),
    "resize_nearest": lambda op, w, n: (resized(), resized(mode="linear half_pixel")),
    "resize_spatial_only": lambda op, w, n: (resized(), resized(channels=2)),
    "resize_whole_factor": lambda op, w, n: tuple(
        resized((f, f), "linear half_pixel") for f in (n["linear"], n["linear"] + 1)
    ),
    "resize_whole_factor_or_point": lambda op, w, n: tuple(resized((f, f)) for f in (n["high"], n["high"] + 1)),
    "shared_input_scale": lambda op, w, n: (all_quantized(two(op)), second_input(two(op), 0.25)),
    "shared_scale": lambda op, w, n: (all_quantized(base(op)), last_output(base(op), 0.25)),
    "slice_keeps_batch": lambda op, w, n: (cut(), cut(0, start=1, source=(2, 8, 4, 4))),
    "slice_steps_forward": lambda op, w, n: (cut(step=2), cut(step=-1, start=3)),
    "slice_steps_one": lambda op, w, n: (cut(), cut(step=2)),
    "small_or_long": lambda op, w, n: tuple(window(op, w, k=(k, 1)) for k in (n["size"], n["size"] + 1)),
    "softmax_rows": lambda op, w, n: tuple(same(op, 1, 8, 1, rows, axis=1) for rows in (n["rows"] - 1, n["rows"])),
    "softmax_size": lambda op, w, n: tuple(same(op, 1, e, axis=1) for e in (n["elements"], n["elements"] + 1)),
    "split_keeps_batch": lambda op, w, n: tuple(split((2, *MAP[1:]) if a == 0 else MAP, a) for a in (1, 0)),
    "square_dilation": lambda op, w, n: (window(op, w, d=(2, 2)), window(op, w, d=(2, 1))),
    "standard_hard_sigmoid": lambda op, w, n: (base(op), same(op, *MAP)),
    "static_but_batch": lambda op, w, n: (shaped(base(op, w), None, 8, 4, 4), shaped(base(op, w), 1, 8, 4, None)),
    "static_shapes": lambda op, w, n: (base(op, w), shaped(base(op, w), 1, 8, 4, None)),
    "stride_one_of": lambda op, w, n: tuple(window(op, w, s=(s, s)) for s in (n["strides"][-1], n["strides"][-1] + 1)),
    "stride_within_kernels": lambda op, w, n: tuple(
        window(op, s=(s, s), k=(2, 2)) for s in (2 * n["times"], 2 * n["times"] + 1)
    ),
    "transpose_channels_first": lambda op, w, n: tuple(
        moved(op, (1, 1, n["size"] - 1 + more, 1), (1, 1, 1, n["size"] - 1 + more), perm=(0, 3, 1, 2))
        for more in (0, 1)
    ),
    "transpose_channels_last": lambda op, w, n: tuple(
        moved(op, (1, c, 1, n["multiple"]), (1, 1, n["multiple"], c), perm=(0, 2, 3, 1))
        for c in (n["channels"] - 1, n["channels"])
    ),
    "transpose_height_width": lambda op, w, n: tuple(
        moved(op, (1, 8, n["multiple"], x), (1, 8, x, n["multiple"]), perm=(0, 1, 3, 2))
        for x in (n["area"] // n["multiple"] - 1, n["area"] // n["multiple"])
    ),
    "transposed_output": lambda op, w, n: (window(op, w, s=(2, 2)), window(op, w, s=(2, 2), p=(1, 1, 1, 1))),
    "transposed_strides": lambda op, w, n: tuple(window(op, w, s=(s, s)) for s in (n["stride"], n["stride"] + 1)),
    "two_spatial_dimensions": lambda op, w, n: (base(op, w), line(base(op, w))),
    "vector_output": lambda op, w, n: (product(op, w), product(op, w, rows=2)),
    "weight_sum": lambda op, w, n: tuple(summed(op, w, total) for total in (n["sum"], n["sum"] + 1)),
    "weight_types": lambda op, w, n: tuple(
        operand(base(op, w), 1, quantized(base(op, w).inputs[1], kind)) for kind in (n["types"][0], "int16")
    ),
    "width_under_tall_kernel": lambda op, w, n: tuple(
        window(op, w, x=(1, 8, 16, x)) for x in (n["width"] - 1, n["width"])
    ),
}
"""By rule: from operator, form and limits to the two nodes."""
