"""The page's arithmetic: one WebAssembly function that computes any of the decoder's convolutions.

A tile of 4 pixels × 8 channels stays in registers while the taps go by. Pictures lie as (rows, columns, channels) with
a border of zeros, so the taps of one row are one run of numbers, and a transposed convolution of stride 2 is four
convolutions of 2×2 taps, one for each parity of the output's rows and columns.
"""

PIXELS, UNROLLED = 4, 4


def wat() -> str:
    """The module as WebAssembly text."""
    halves = (0, 1)  # of the 8 channels
    accumulators = [(pixel, half) for pixel in range(PIXELS) for half in halves]
    lines = [
        '(module (memory (export "memory") 1)',
        # For each tile of 8 channels, and 4 pixels of the table (where each is read and where written, in bytes):
        # `rows` runs of `run` numbers, `row_bytes` apart. 16 bytes of the second half are not written at the edge.
        '(func (export "convolve") (param $table i32) (param $table_end i32) (param $in i32) (param $weights i32)',
        "(param $bias i32) (param $out i32) (param $channel_bytes i32) (param $rows i32) (param $run i32)",
        "(param $row_bytes i32) (param $slope f32) (param $skip i32)",
        "(local $at i32) (local $channel i32) (local $w i32) (local $row i32) (local $left i32) (local $offset i32)",
        *(f"(local $p{pixel} i32)" for pixel in range(PIXELS)),
        *(f"(local $a{pixel}{half} v128)" for pixel, half in accumulators),
        "(local $w0 v128) (local $w1 v128) (local $x v128) (local $steepness v128)",
        "(local.set $steepness (f32x4.splat (local.get $slope)))",
        "(loop $tiles",
        "(local.set $at (local.get $table))",
        "(loop $pixels",
        "(local.set $w (local.get $weights))",
        *(f"(local.set $a{i}{half} (v128.load offset={16 * half} (local.get $bias)))" for i, half in accumulators),
        "(local.set $row (i32.const 0))",
        "(loop $each_row",
        "(local.set $offset (i32.add (local.get $in) (i32.mul (local.get $row) (local.get $row_bytes))))",
        *(
            f"(local.set $p{pixel} (i32.add (local.get $offset) (i32.load offset={8 * pixel} (local.get $at))))"
            for pixel in range(PIXELS)
        ),
        "(local.set $left (local.get $run))",
        "(loop $numbers",
    ]  # fmt: skip
    for step in range(UNROLLED):
        lines += [f"(local.set $w{half} (v128.load offset={32 * step + 16 * half} (local.get $w)))" for half in halves]
        for pixel in range(PIXELS):
            lines.append(f"(local.set $x (v128.load32_splat offset={4 * step} (local.get $p{pixel})))")
            for half in halves:
                a, product = f"$a{pixel}{half}", f"(local.get $x) (local.get $w{half})"
                lines.append(f"(local.set {a} (f32x4.add (local.get {a}) (f32x4.mul {product})))")
    lines += [
        *(f"(local.set $p{i} (i32.add (local.get $p{i}) (i32.const {4 * UNROLLED})))" for i in range(PIXELS)),
        f"(local.set $w (i32.add (local.get $w) (i32.const {32 * UNROLLED})))",
        f"(br_if $numbers (local.tee $left (i32.sub (local.get $left) (i32.const {UNROLLED})))))",
        "(local.set $row (i32.add (local.get $row) (i32.const 1)))",
        "(br_if $each_row (i32.lt_u (local.get $row) (local.get $rows))))",
    ]
    for pixel in range(PIXELS):
        place = f"(i32.load offset={8 * pixel + 4} (local.get $at))"
        lines.append(f"(local.set $offset (i32.add (local.get $channel) {place}))")
        for half in halves:
            a, place = f"(local.get $a{pixel}{half})", f"offset={16 * half} (i32.add (local.get $offset)"
            store = [  # leaky ReLU, and the residual: what lies at `skip`, laid out as the output is
                f"(local.set $x (f32x4.max {a} (f32x4.mul {a} (local.get $steepness))))",
                f"(if (local.get $skip) (then (local.set $x (f32x4.add (local.get $x) (v128.load {place}"
                " (local.get $skip)))))))",
                f"(v128.store {place} (local.get $out)) (local.get $x))",
            ]
            if half:
                within = "(i32.lt_u (i32.add (local.get $channel) (i32.const 16)) (local.get $channel_bytes))"
                store = [f"(if {within} (then", *store, "))"]
            lines += store
    lines += [
        f"(local.set $at (i32.add (local.get $at) (i32.const {8 * PIXELS})))",
        "(br_if $pixels (i32.lt_u (local.get $at) (local.get $table_end))))",
        "(local.set $weights (local.get $w))",
        "(local.set $bias (i32.add (local.get $bias) (i32.const 32)))",
        "(local.set $channel (i32.add (local.get $channel) (i32.const 32)))",
        "(br_if $tiles (i32.lt_u (local.get $channel) (local.get $channel_bytes))))))",
    ]
    return "\n".join(lines)
