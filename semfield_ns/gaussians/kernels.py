"""Kernels of the CPU renderer, compiled by numba when they are first called, and cached here or for the user.

Arrays are float32 and flat where rows are written in brackets. A tile is 16x16 pixels; it is worked on in 32 blocks of
4x2 pixels, the eight lanes of a vector. For one picture:

1. `prepare` gives each Gaussian a record: centre, conic, opacity, how far it reaches.
2. `depth_order` sorts those that are seen, `count_tiles` and `fill_tiles` list them for every tile in this order.
   A place in these lists, one Gaussian in one tile, is an entry.
3. `composite` takes a tile at a time, and in it a Gaussian at a time, front to back. If gradients will be wanted it
   notes for each entry the blocks that it contributes to, and for each pixel its last entry.
4. `composite_backward` goes back to front and writes sums of gradients for each entry; `gather` adds them up for each
   Gaussian, always in the same order, so that results do not depend on which thread did what.
"""

import math

import numpy as np
from numba import njit, prange

from semfield_ns.gaussians.lanes import (
    columns,
    exponential,
    holds_anywhere,
    larger,
    load,
    lowest_bit,
    multiply_add,
    rows,
    select,
    smaller,
    splat,
    store,
    take_ticket,
    total,
)

Array = np.ndarray

TILE, BLOCKS, LANES = 16, 32, 8
PIXELS = TILE * TILE
RECORD = 10
"""centre x, y; conic a, b, c; opacity; largest sigma that counts; reach along x and y in pixels; depth"""
SUMS = 8
"""sums of k, k dx, k dy, k dx dx, k dx dy, k dy dy (k: gradient of -sigma), of the depth's gradient, and one unused"""
CHUNK = 1024
"""Gaussians that a thread takes at a time"""

MAX_ALPHA = np.float32(0.999)
MIN_ALPHA = np.float32(1 / 255)
MIN_TRANSMITTANCE = np.float32(1e-4)
FAR = np.float32(1e30)

# Without fastmath: infinities and NaN are what they are, and operations are done as written.
compiled = njit(cache=True, nogil=True)
# Loops stand where slices could be assigned: these take numba seconds to compile.
threads = njit(cache=True, nogil=True, parallel=True)


@compiled
def rotation(w: float, x: float, y: float, z: float) -> tuple:
    """The rotation matrix of a unit quaternion, row by row."""
    return (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )


@compiled
def product(a: tuple, b: tuple) -> tuple:
    """The product of two 3x3 matrices, row by row."""
    return (
        a[0] * b[0] + a[1] * b[3] + a[2] * b[6],
        a[0] * b[1] + a[1] * b[4] + a[2] * b[7],
        a[0] * b[2] + a[1] * b[5] + a[2] * b[8],
        a[3] * b[0] + a[4] * b[3] + a[5] * b[6],
        a[3] * b[1] + a[4] * b[4] + a[5] * b[7],
        a[3] * b[2] + a[4] * b[5] + a[5] * b[8],
        a[6] * b[0] + a[7] * b[3] + a[8] * b[6],
        a[6] * b[1] + a[7] * b[4] + a[8] * b[7],
        a[6] * b[2] + a[7] * b[5] + a[8] * b[8],
    )


@compiled
def limits(camera: Array) -> tuple:
    """The interval of x / z and of y / z in which a projection is linearised at the centre itself."""
    fx, fy, cx, cy, width, height = camera[12], camera[13], camera[14], camera[15], camera[16], camera[17]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    return -cx / fx - margin_x, (width - cx) / fx + margin_x, -cy / fy - margin_y, (height - cy) / fy + margin_y


@threads
def project(
    means: Array,
    quaternions: Array,
    scales: Array,
    opacities: Array,
    camera: Array,
    near: float,
    blur: float,
    means2d: Array,
    depths: Array,
    conics: Array,
    radii: Array,
) -> None:
    """Fills means2d [N, 2], depths [N], conics [N, 3] and radii [N]; zeros for what is not seen.

    camera (float64): world to camera (y down, z forwards), 9 of the rotation and 3 of the shift; fx, fy, cx, cy;
    width, height. opacities: [N], or [0] for opaque ones.
    """
    fx, fy, cx, cy, width, height = camera[12], camera[13], camera[14], camera[15], camera[16], camera[17]
    low_x, high_x, low_y, high_y = limits(camera)
    view = (
        camera[0],
        camera[1],
        camera[2],
        camera[3],
        camera[4],
        camera[5],
        camera[6],
        camera[7],
        camera[8],
    )
    for i in prange(len(means)):
        means2d[i, 0] = means2d[i, 1] = depths[i] = radii[i] = 0
        conics[i, 0] = conics[i, 1] = conics[i, 2] = 0
        opacity = 1.0
        if len(opacities) > 0:
            opacity = opacities[i]
        m0, m1, m2 = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
        z = view[6] * m0 + view[7] * m1 + view[8] * m2 + camera[11]
        if not (z >= near and opacity >= MIN_ALPHA and opacity < FAR):
            continue
        x = view[0] * m0 + view[1] * m1 + view[2] * m2 + camera[9]
        y = view[3] * m0 + view[4] * m1 + view[5] * m2 + camera[10]
        q0, q1, q2, q3 = (
            np.float64(quaternions[i, 0]),
            np.float64(quaternions[i, 1]),
            np.float64(quaternions[i, 2]),
            np.float64(quaternions[i, 3]),
        )
        norm = math.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
        if not norm > 0:
            continue
        turned = product(view, rotation(q0 / norm, q1 / norm, q2 / norm, q3 / norm))
        u, v = x / z, y / z
        at_u, at_v = min(max(u, low_x), high_x), min(max(v, low_y), high_y)
        xx = yy = blur
        xy = 0.0
        for k in range(3):
            s = np.float64(scales[i, k])
            along_x = fx / z * (turned[k] - at_u * turned[6 + k]) * s
            along_y = fy / z * (turned[3 + k] - at_v * turned[6 + k]) * s
            xx += along_x * along_x
            xy += along_x * along_y
            yy += along_y * along_y
        det = xx * yy - xy * xy
        # False too for what is not a number.
        if not (det > 0 and det < 1e300 and z < FAR):
            continue
        middle = 0.5 * (xx + yy)
        largest = middle + math.sqrt(max(middle * middle - det, 0.0))
        radius = math.ceil(math.sqrt(2 * math.log(255 * opacity) * largest))
        px, py = fx * u + cx, fy * v + cy
        seen = px + radius > 0 and px - radius < width and py + radius > 0 and py - radius < height
        if not (seen and radius < FAR):
            continue
        means2d[i, 0], means2d[i, 1] = px, py
        depths[i] = z
        conics[i, 0], conics[i, 1], conics[i, 2] = yy / det, -xy / det, xx / det
        radii[i] = max(radius, 1)


@threads
def project_backward(
    means: Array,
    quaternions: Array,
    scales: Array,
    camera: Array,
    blur: float,
    radii: Array,
    to_means2d: Array,
    to_depths: Array,
    to_conics: Array,
    to_means: Array,
    to_quaternions: Array,
    to_scales: Array,
) -> None:
    """Fills the gradients of means [N, 3], quaternions [N, 4] and scales [N, 3] of those of what `project` filled."""
    fx, fy = camera[12], camera[13]
    low_x, high_x, low_y, high_y = limits(camera)
    view = (
        camera[0],
        camera[1],
        camera[2],
        camera[3],
        camera[4],
        camera[5],
        camera[6],
        camera[7],
        camera[8],
    )
    for i in prange(len(means)):
        for k in range(3):
            to_means[i, k] = to_scales[i, k] = 0
        for k in range(4):
            to_quaternions[i, k] = 0
        if not radii[i] > 0:
            continue
        m0, m1, m2 = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
        x = view[0] * m0 + view[1] * m1 + view[2] * m2 + camera[9]
        y = view[3] * m0 + view[4] * m1 + view[5] * m2 + camera[10]
        z = view[6] * m0 + view[7] * m1 + view[8] * m2 + camera[11]
        q0, q1, q2, q3 = (
            np.float64(quaternions[i, 0]),
            np.float64(quaternions[i, 1]),
            np.float64(quaternions[i, 2]),
            np.float64(quaternions[i, 3]),
        )
        norm = math.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
        q0, q1, q2, q3 = q0 / norm, q1 / norm, q2 / norm, q3 / norm
        turned = product(view, rotation(q0, q1, q2, q3))
        s0, s1, s2 = np.float64(scales[i, 0]), np.float64(scales[i, 1]), np.float64(scales[i, 2])
        u, v = x / z, y / z
        at_u, at_v = min(max(u, low_x), high_x), min(max(v, low_y), high_y)
        # B = J M: the Gaussian's axes in pixels; its covariance is B B^T + blur.
        fz, gz = fx / z, fy / z
        b0 = (
            fz * (turned[0] - at_u * turned[6]) * s0,
            fz * (turned[1] - at_u * turned[7]) * s1,
            fz * (turned[2] - at_u * turned[8]) * s2,
        )
        b1 = (
            gz * (turned[3] - at_v * turned[6]) * s0,
            gz * (turned[4] - at_v * turned[7]) * s1,
            gz * (turned[5] - at_v * turned[8]) * s2,
        )
        xx = b0[0] * b0[0] + b0[1] * b0[1] + b0[2] * b0[2] + blur
        xy = b0[0] * b1[0] + b0[1] * b1[1] + b0[2] * b1[2]
        yy = b1[0] * b1[0] + b1[1] * b1[1] + b1[2] * b1[2] + blur
        det = xx * yy - xy * xy
        a, b, c = yy / det, -xy / det, xx / det
        ga, gb, gc = np.float64(to_conics[i, 0]), 0.5 * to_conics[i, 1], np.float64(to_conics[i, 2])
        # Gradient of the covariance: -Q G Q, with Q the conic.
        p, q, r, s = a * ga + b * gb, a * gb + b * gc, b * ga + c * gb, b * gb + c * gc
        gxx, gxy, gyy = -(p * a + q * b), -(p * b + q * c), -(r * b + s * c)
        d0 = (
            2 * (gxx * b0[0] + gxy * b1[0]),
            2 * (gxx * b0[1] + gxy * b1[1]),
            2 * (gxx * b0[2] + gxy * b1[2]),
        )
        d1 = (
            2 * (gxy * b0[0] + gyy * b1[0]),
            2 * (gxy * b0[1] + gyy * b1[1]),
            2 * (gxy * b0[2] + gyy * b1[2]),
        )
        # Gradients of J's four numbers: fx / z, -fx u / z, fy / z, -fy v / z.
        j00 = d0[0] * turned[0] * s0 + d0[1] * turned[1] * s1 + d0[2] * turned[2] * s2
        j02 = d0[0] * turned[6] * s0 + d0[1] * turned[7] * s1 + d0[2] * turned[8] * s2
        j11 = d1[0] * turned[3] * s0 + d1[1] * turned[4] * s1 + d1[2] * turned[5] * s2
        j12 = d1[0] * turned[6] * s0 + d1[1] * turned[7] * s1 + d1[2] * turned[8] * s2
        # Of u and v, of z through them, and of z itself.
        gu, gv = fx * to_means2d[i, 0], fy * to_means2d[i, 1]
        if low_x <= u and u <= high_x:
            gu -= fz * j02
        if low_y <= v and v <= high_y:
            gv -= gz * j12
        gx, gy = gu / z, gv / z
        g = to_depths[i] - (gu * u + gv * v) / z
        g += (-j00 * fz + j02 * fz * at_u - j11 * gz + j12 * gz * at_v) / z
        for k in range(3):
            to_means[i, k] = view[k] * gx + view[3 + k] * gy + view[6 + k] * g
        # Gradient of the axes R diag(s) in world coordinates, column by column.
        scale = (s0, s1, s2)
        r = rotation(q0, q1, q2, q3)
        e00 = e01 = e02 = e10 = e11 = e12 = e20 = e21 = e22 = 0.0
        for k in range(3):
            h0, h1 = fz * d0[k], gz * d1[k]
            h2 = -fz * at_u * d0[k] - gz * at_v * d1[k]
            e0 = view[0] * h0 + view[3] * h1 + view[6] * h2
            e1 = view[1] * h0 + view[4] * h1 + view[7] * h2
            e2 = view[2] * h0 + view[5] * h1 + view[8] * h2
            to_scales[i, k] = r[k] * e0 + r[3 + k] * e1 + r[6 + k] * e2
            e0, e1, e2 = e0 * scale[k], e1 * scale[k], e2 * scale[k]
            if k == 0:
                e00, e10, e20 = e0, e1, e2
            elif k == 1:
                e01, e11, e21 = e0, e1, e2
            else:
                e02, e12, e22 = e0, e1, e2
        g0 = 2 * (q1 * (e21 - e12) + q2 * (e02 - e20) + q3 * (e10 - e01))
        g1 = 2 * (q2 * (e01 + e10) + q3 * (e02 + e20) + q0 * (e21 - e12) - 2 * q1 * (e11 + e22))
        g2 = 2 * (q1 * (e01 + e10) + q3 * (e12 + e21) + q0 * (e02 - e20) - 2 * q2 * (e00 + e22))
        g3 = 2 * (q1 * (e02 + e20) + q2 * (e12 + e21) + q0 * (e10 - e01) - 2 * q3 * (e00 + e11))
        along = g0 * q0 + g1 * q1 + g2 * q2 + g3 * q3
        to_quaternions[i, 0] = (g0 - along * q0) / norm
        to_quaternions[i, 1] = (g1 - along * q1) / norm
        to_quaternions[i, 2] = (g2 - along * q2) / norm
        to_quaternions[i, 3] = (g3 - along * q3) / norm


@threads
def prepare(
    means2d: Array,
    conics: Array,
    radii: Array,
    opacities: Array,
    depths: Array,
    width: int,
    height: int,
    records: Array,
) -> None:
    """Fills records [N * RECORD]; the reach along x is negative for what is not seen."""
    for i in prange(len(radii)):
        r = i * RECORD
        records[r + 7] = -1
        opacity, radius = opacities[i], radii[i]
        x, y, a, b, c = means2d[i, 0], means2d[i, 1], conics[i, 0], conics[i, 1], conics[i, 2]
        finite = abs(x) < FAR and abs(y) < FAR and abs(a) < FAR and abs(b) < FAR and abs(c) < FAR
        if not (finite and radius > 0 and opacity >= MIN_ALPHA and opacity < FAR and abs(depths[i]) < FAR):
            continue
        largest = np.float64(math.log(np.float64(opacity) * 255.0)) + 1e-4
        # Conics are rounded: the determinant of a thin one may be smaller than it seems.
        det = np.float64(a) * np.float64(c) * (1 - 1e-6) - np.float64(b) * np.float64(b)
        reach_x = reach_y = 1.0 + radius
        if det > 0:
            reach_x = min(reach_x, math.sqrt(2 * largest * c / det) + 1e-3)
            reach_y = min(reach_y, math.sqrt(2 * largest * a / det) + 1e-3)
        # No pixel's centre is within reach.
        left, right = math.ceil(max(x - reach_x - 0.5, 0)), math.floor(min(x + reach_x - 0.5, width - 1))
        top, bottom = math.ceil(max(y - reach_y - 0.5, 0)), math.floor(min(y + reach_y - 0.5, height - 1))
        if left > right or top > bottom:
            continue
        records[r], records[r + 1] = x, y
        records[r + 2], records[r + 3], records[r + 4] = a, b, c
        records[r + 5] = opacity
        records[r + 6] = largest
        records[r + 7], records[r + 8] = reach_x, reach_y
        records[r + 9] = depths[i]


@compiled
def depth_order(records: Array, keys: Array, order: Array) -> int:
    """Sorts what is seen by depth, equal depths by index; order [N] gets the indices, their number is returned.

    keys: uint32 views of records.
    """
    n = len(records) // RECORD
    digits = 2048
    counts = np.zeros((3, digits + 1), np.int64)
    seen = 0
    sortable = np.empty(n, np.uint32)
    for i in range(n):
        if records[i * RECORD + 7] >= 0:
            key = keys[i * RECORD + 9]
            # Bits of floating-point numbers in the order of the numbers, negative ones too.
            key = ~key if key >> np.uint32(31) else key | np.uint32(0x80000000)
            sortable[i] = key
            order[seen] = i
            counts[0, (key & np.uint32(2047)) + 1] += 1
            counts[1, ((key >> np.uint32(11)) & np.uint32(2047)) + 1] += 1
            counts[2, (key >> np.uint32(22)) + 1] += 1
            seen += 1
    other = np.empty(seen, np.int32)
    source, target = order[:seen], other
    for digit in range(3):
        starts = np.cumsum(counts[digit])
        shift = np.uint32(11 * digit)
        for k in range(seen):
            i = source[k]
            d = (sortable[i] >> shift) & np.uint32(2047)
            target[starts[d]] = i
            starts[d] += 1
        source, target = target, source
    # Three digits: the last were written to the other one.
    for k in range(seen):
        order[k] = source[k]
    return seen


@compiled
def tile_range(low: float, high: float, tiles: int) -> tuple:
    """First and last tile that has a pixel's centre between two coordinates; the first is larger if there is none."""
    first = math.ceil(max(low - 0.5, 0.0))
    last = math.floor(min(high - 0.5, TILE * tiles - 1.0))
    return int(first) // TILE, int(last) // TILE if last >= first else -1


@compiled
def row_range(records: Array, r: int, ty: int, tiles_x: int) -> tuple:
    """First and last tile of a row of tiles that the ellipse of a record has a part in."""
    x, y = np.float64(records[r]), np.float64(records[r + 1])
    a, b, c = np.float64(records[r + 2]), np.float64(records[r + 3]), np.float64(records[r + 4])
    twice = 2 * np.float64(records[r + 6]) + 2e-3
    reach_x = np.float64(records[r + 7])
    left, right = -reach_x, reach_x
    top, bottom = ty * TILE + 0.5 - y, ty * TILE + 15.5 - y
    if a > 0:
        # The rightmost point of the ellipse is at dy = -b / c * reach, the leftmost at b / c * reach. If these are not
        # between the centres of the first and the last row, the end is on one of them.
        tip = -b / c * reach_x
        if tip < top or tip > bottom:
            dy = top if tip < top else bottom
            root = b * b * dy * dy - a * (c * dy * dy - twice)
            right = min(right, (-b * dy + math.sqrt(max(root, 0.0))) / a + 1e-2)
        if -tip < top or -tip > bottom:
            dy = top if -tip < top else bottom
            root = b * b * dy * dy - a * (c * dy * dy - twice)
            left = max(left, (-b * dy - math.sqrt(max(root, 0.0))) / a - 1e-2)
    return tile_range(x + left, x + right, tiles_x)


@threads
def count_tiles(records: Array, order: Array, tiles_x: int, tiles_y: int, counts: Array, sizes: Array) -> None:
    """Counts entries: for each chunk of the order and each tile (counts [chunks, tiles]), and each Gaussian (sizes)."""
    chunks = len(counts)
    for chunk in prange(chunks):
        for k in range(len(order) * chunk // chunks, len(order) * (chunk + 1) // chunks):
            r = order[k] * RECORD
            y, reach = np.float64(records[r + 1]), np.float64(records[r + 8])
            top, bottom = tile_range(y - reach, y + reach, tiles_y)
            size = 0
            for ty in range(top, bottom + 1):
                left, right = row_range(records, r, ty, tiles_x)
                for t in range(ty * tiles_x + left, ty * tiles_x + right + 1):
                    counts[chunk, t] += 1
                    size += 1
            sizes[k + 1] = size


@compiled
def add_up(counts: Array, starts: Array, sizes: Array) -> None:
    """Turns counts into where each chunk begins in the list of each tile, and sizes into sums of those before."""
    chunks, tiles = counts.shape
    place = 0
    for t in range(tiles):
        starts[t] = place
        for chunk in range(chunks):
            count = counts[chunk, t]
            counts[chunk, t] = place
            place += count
    starts[tiles] = place
    for k in range(1, len(sizes)):
        sizes[k] += sizes[k - 1]


@threads
def fill_tiles(
    records: Array, order: Array, tiles_x: int, tiles_y: int, counts: Array, sizes: Array, entries: Array, places: Array
) -> None:
    """Lists the Gaussians of each tile (entries), and the entries of each Gaussian (places, unless it is empty)."""
    chunks = len(counts)
    for chunk in prange(chunks):
        for k in range(len(order) * chunk // chunks, len(order) * (chunk + 1) // chunks):
            i = order[k]
            r = i * RECORD
            y, reach = np.float64(records[r + 1]), np.float64(records[r + 8])
            top, bottom = tile_range(y - reach, y + reach, tiles_y)
            n = sizes[k]
            for ty in range(top, bottom + 1):
                left, right = row_range(records, r, ty, tiles_x)
                for t in range(ty * tiles_x + left, ty * tiles_x + right + 1):
                    place = counts[chunk, t]
                    counts[chunk, t] = place + 1
                    entries[place] = i
                    if len(places) > 0:
                        places[n] = place
                        n += 1


@compiled
def block_range(x: float, reach: float, step: int, blocks: int) -> tuple:
    """First and last block of a tile, along one side, that has a pixel's centre within reach of x."""
    first = math.ceil(max(x - reach - np.float32(0.5), np.float32(0)))
    last = math.floor(min(x + reach - np.float32(0.5), np.float32(TILE - 1)))
    return int(first) // step, int(last) // step if last >= first else -1


@compiled
def composite_tile(
    tile_x: int,
    tile_y: int,
    first: int,
    end: int,
    entries: Array,
    records: Array,
    channels: Array,
    wanted: tuple,
    light: Array,
    sums: Array,
    depth: Array,
    median: Array,
    most: Array,
    strongest: Array,
    last: Array,
    masks: Array,
) -> int:
    """Composites a tile into its buffers; returns behind which entry all of its pixels are finished.

    light: transmittance [256], negative where a pixel is finished; sums: [32 * C * 8].
    """
    num = len(sums) // PIXELS
    with_depth, with_median, with_index, with_gradients = wanted
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    half = splat(np.float32(0.5))
    alive = 0
    for block in range(BLOCKS):
        if holds_anywhere(load(light, block * LANES) > zero):
            alive += 1
    for j in range(first, end):
        i = entries[j]
        r = i * RECORD
        x, y = records[r] - np.float32(tile_x * TILE), records[r + 1] - np.float32(tile_y * TILE)
        left, right = block_range(x, records[r + 7], 4, 4)
        top, bottom = block_range(y, records[r + 8], 2, 8)
        a, b, c = (
            splat(np.float32(0.5) * records[r + 2]),
            splat(records[r + 3]),
            splat(np.float32(0.5) * records[r + 4]),
        )
        opacity, largest = splat(records[r + 5]), splat(records[r + 6])
        mask = np.uint32(0)
        for row in range(top, bottom + 1):
            dy = rows() + splat(np.float32(2 * row) + np.float32(0.5) - y)
            by, cyy = b * dy, c * dy * dy
            for column in range(left, right + 1):
                block = row * 4 + column
                p = block * LANES
                before = load(light, p)
                dx = columns() + splat(np.float32(4 * column) + np.float32(0.5) - x)
                sigma = multiply_add(multiply_add(a, dx, by), dx, cyy)
                if not holds_anywhere((sigma <= largest) & (before > zero)):
                    continue
                alpha = smaller(
                    opacity * exponential(zero - smaller(larger(sigma, zero), splat(80.0))), splat(MAX_ALPHA)
                )
                alpha = select(alpha >= splat(MIN_ALPHA), alpha, zero)
                after = before * (one - alpha)
                goes_on = after > splat(MIN_TRANSMITTANCE)
                weight = select(goes_on, before * alpha, zero)
                after = select(goes_on, after, smaller(before, zero - before))
                store(light, p, after)
                if not holds_anywhere(after > zero):
                    alive -= 1
                contributes = weight > zero
                if not holds_anywhere(contributes):
                    continue
                s = p * num
                for k in range(num):
                    store(sums, s, multiply_add(weight, splat(channels[i, k]), load(sums, s)))
                    s += LANES
                if with_depth:
                    store(depth, p, multiply_add(weight, splat(records[r + 9]), load(depth, p)))
                if with_median:
                    crosses = contributes & (before >= half) & (after < half)
                    store(median, p, select(crosses, splat(records[r + 9]), load(median, p)))
                if with_index:
                    stronger = weight > load(most, p)
                    store(most, p, select(stronger, weight, load(most, p)))
                    store(strongest, p, select(stronger, splat(np.float32(i)), load(strongest, p)))
                if with_gradients:
                    store(last, p, select(contributes, splat(np.float32(j - first)), load(last, p)))
                    mask |= np.uint32(1) << np.uint32(block)
        if with_gradients:
            masks[j] = mask
        if alive == 0:
            return j + 1
    return end


@compiled
def composite_tiles(
    ticket: Array,
    starts: Array,
    entries: Array,
    records: Array,
    channels: Array,
    background: Array,
    width: int,
    height: int,
    wanted: tuple,
    picture: Array,
    accumulation: Array,
    depth: Array,
    median: Array,
    strongest: Array,
    last: Array,
    masks: Array,
    ends: Array,
) -> None:
    """What one thread does for `composite`: tile after tile, until there are no more."""
    num = channels.shape[1]
    with_depth, with_median, with_index, with_gradients = wanted
    tiles_x = (width + TILE - 1) // TILE
    tiles = len(starts) - 1
    light = np.empty(PIXELS, np.float32)
    sums = np.empty(PIXELS * num, np.float32)
    tile_depth, tile_median, tile_most, tile_strongest, tile_last = (
        np.empty(PIXELS, np.float32),
        np.empty(PIXELS, np.float32),
        np.empty(PIXELS, np.float32),
        np.empty(PIXELS, np.float32),
        np.empty(PIXELS, np.float32),
    )
    while True:
        t = take_ticket(ticket)
        if t >= tiles:
            break
        tile_y = t // tiles_x
        tile_x = t - tile_y * tiles_x
        for p in range(len(sums)):
            sums[p] = 0
        for p in range(PIXELS):
            tile_depth[p] = tile_median[p] = tile_most[p] = 0
            tile_strongest[p] = tile_last[p] = -1
        columns_left, rows_left = min(width - tile_x * TILE, TILE), min(height - tile_y * TILE, TILE)
        for y in range(TILE):
            for x in range(TILE):
                p = ((y // 2) * 4 + x // 4) * LANES + (y % 2) * 4 + x % 4
                light[p] = 1 if x < columns_left and y < rows_left else 0
        end = composite_tile(
            tile_x,
            tile_y,
            starts[t],
            starts[t + 1],
            entries,
            records,
            channels,
            wanted,
            light,
            sums,
            tile_depth,
            tile_median,
            tile_most,
            tile_strongest,
            tile_last,
            masks,
        )
        if with_gradients:
            ends[t] = end
            for p in range(PIXELS):
                last[t * PIXELS + p] = tile_last[p]
            for j in range(end, starts[t + 1]):
                masks[j] = 0
        for y in range(rows_left):
            pixel = (tile_y * TILE + y) * width + tile_x * TILE
            for x in range(columns_left):
                block, lane = (y // 2) * 4 + x // 4, (y % 2) * 4 + x % 4
                p = block * LANES + lane
                rest = abs(light[p])
                accumulation[pixel] = np.float32(1) - rest
                s = block * LANES * num + lane
                o = pixel * num
                if len(background) > 0:
                    for k in range(num):
                        picture[o + k] = sums[s + k * LANES] + rest * background[k]
                else:
                    for k in range(num):
                        picture[o + k] = sums[s + k * LANES]
                if with_depth:
                    depth[pixel] = tile_depth[p]
                if with_median:
                    median[pixel] = tile_median[p]
                if with_index:
                    strongest[pixel] = np.int64(tile_strongest[p])
                pixel += 1


@threads
def composite(
    workers: int,
    ticket: Array,
    starts: Array,
    entries: Array,
    records: Array,
    channels: Array,
    background: Array,
    width: int,
    height: int,
    wanted: tuple,
    picture: Array,
    accumulation: Array,
    depth: Array,
    median: Array,
    strongest: Array,
    last: Array,
    masks: Array,
    ends: Array,
) -> None:
    """Fills picture [H * W * C] and accumulation [H * W], and what else is wanted; arrays of size 0 stay so.

    wanted: whether depth [H * W], median depth [H * W], strongest Gaussian [H * W] and, for gradients, last entries
    [tiles * 256], masks of blocks [entries] and finishing entries of tiles (ends).
    """
    for _ in prange(workers):
        composite_tiles(
            ticket,
            starts,
            entries,
            records,
            channels,
            background,
            width,
            height,
            wanted,
            picture,
            accumulation,
            depth,
            median,
            strongest,
            last,
            masks,
            ends,
        )


@compiled
def composite_tile_backward(
    tile_x: int,
    tile_y: int,
    first: int,
    end: int,
    entries: Array,
    records: Array,
    channels: Array,
    with_depth: bool,
    light: Array,
    behind: Array,
    to_sums: Array,
    to_depth: Array,
    last: Array,
    last_offset: int,
    masks: Array,
    weights: Array,
    blocks: Array,
    gradients: Array,
) -> None:
    """Goes through a tile from back to front and writes gradients [entries, SUMS + C].

    light: transmittance behind everything [256], turned into that in front; behind: what the loss gains from a unit of
    light behind, times light; to_sums: gradients of the tile's pixels [32 * C * 8].
    """
    num = channels.shape[1]
    row_length = SUMS + num
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for j in range(end - 1, first - 1, -1):
        mask = np.uint32(masks[j])
        if mask == 0:
            continue
        i = entries[j]
        r = i * RECORD
        x, y = records[r] - np.float32(tile_x * TILE), records[r + 1] - np.float32(tile_y * TILE)
        a, b, c = (
            splat(np.float32(0.5) * records[r + 2]),
            splat(records[r + 3]),
            splat(np.float32(0.5) * records[r + 4]),
        )
        opacity = splat(records[r + 5])
        number = splat(np.float32(j - first))
        sum_k = sum_x = sum_y = sum_xx = sum_xy = sum_yy = sum_depth = zero
        used = 0
        while mask != 0:
            block = lowest_bit(mask)
            mask &= mask - np.uint32(1)
            row, column = block // 4, block % 4
            p = block * LANES
            dx = columns() + splat(np.float32(4 * column) + np.float32(0.5) - x)
            dy = rows() + splat(np.float32(2 * row) + np.float32(0.5) - y)
            sigma = multiply_add(multiply_add(a, dx, b * dy), dx, c * dy * dy)
            unclamped = opacity * exponential(zero - smaller(larger(sigma, zero), splat(80.0)))
            counts = (unclamped >= splat(MIN_ALPHA)) & (load(last, last_offset + p) >= number)
            alpha = select(counts, smaller(unclamped, splat(MAX_ALPHA)), zero)
            inverse = one / (one - alpha)
            before = load(light, p) * inverse
            store(light, p, before)
            weight = alpha * before
            store(weights, used * LANES, weight)
            blocks[used] = block * num * LANES
            used += 1
            gain, other = zero, zero
            s = p * num
            for k in range(num // 2):
                gain = multiply_add(load(to_sums, s), splat(channels[i, 2 * k]), gain)
                other = multiply_add(load(to_sums, s + LANES), splat(channels[i, 2 * k + 1]), other)
                s += 2 * LANES
            if num % 2 == 1:
                gain = multiply_add(load(to_sums, s), splat(channels[i, num - 1]), gain)
            gain = gain + other
            if with_depth:
                by_depth = load(to_depth, p)
                gain = multiply_add(by_depth, splat(records[r + 9]), gain)
                sum_depth = multiply_add(weight, by_depth, sum_depth)
            rest = load(behind, p)
            store(behind, p, multiply_add(weight, gain, rest))
            # Gradient of alpha, times alpha: of the logarithm of alpha, which is -sigma + log(opacity).
            factor = alpha * (gain * before - rest * inverse)
            factor = select(counts & (unclamped < splat(MAX_ALPHA)), factor, zero)
            factor_x, factor_y = factor * dx, factor * dy
            sum_k = sum_k + factor
            sum_x = sum_x + factor_x
            sum_y = sum_y + factor_y
            sum_xx = multiply_add(factor_x, dx, sum_xx)
            sum_xy = multiply_add(factor_x, dy, sum_xy)
            sum_yy = multiply_add(factor_y, dy, sum_yy)
        o = j * row_length
        gradients[o] = total(sum_k)
        gradients[o + 1] = total(sum_x)
        gradients[o + 2] = total(sum_y)
        gradients[o + 3] = total(sum_xx)
        gradients[o + 4] = total(sum_xy)
        gradients[o + 5] = total(sum_yy)
        gradients[o + 6] = total(sum_depth)
        add_contributions(used, weights, blocks, to_sums, num, gradients, o + SUMS)


@compiled
def add_contributions(
    used: int, weights: Array, blocks: Array, values: Array, num: int, result: Array, offset: int
) -> None:
    """Writes for each channel the sum over some blocks of weights times values: the Gaussian's share of them."""
    for k in range(0, num - 3, 4):
        s0 = s1 = s2 = s3 = splat(np.float32(0))
        for n in range(used):
            weight = load(weights, n * LANES)
            s = blocks[n] + k * LANES
            s0 = multiply_add(weight, load(values, s), s0)
            s1 = multiply_add(weight, load(values, s + LANES), s1)
            s2 = multiply_add(weight, load(values, s + 2 * LANES), s2)
            s3 = multiply_add(weight, load(values, s + 3 * LANES), s3)
        result[offset + k] = total(s0)
        result[offset + k + 1] = total(s1)
        result[offset + k + 2] = total(s2)
        result[offset + k + 3] = total(s3)
    for k in range(num // 4 * 4, num):
        s0 = splat(np.float32(0))
        for n in range(used):
            s0 = multiply_add(load(weights, n * LANES), load(values, blocks[n] + k * LANES), s0)
        result[offset + k] = total(s0)


@compiled
def read_tile(values: Array, num: int, tile_x: int, tile_y: int, width: int, height: int, tile: Array) -> None:
    """Copies values [H * W * num] of a tile's pixels to [32 * num * 8]; zeros outside the picture."""
    columns_left, rows_left = min(width - tile_x * TILE, TILE), min(height - tile_y * TILE, TILE)
    if columns_left < TILE or rows_left < TILE:
        for s in range(len(tile)):
            tile[s] = 0
    for y in range(rows_left):
        v = ((tile_y * TILE + y) * width + tile_x * TILE) * num
        for x in range(columns_left):
            s = ((y // 2) * 4 + x // 4) * LANES * num + (y % 2) * 4 + x % 4
            for k in range(num):
                tile[s + k * LANES] = values[v + k]
            v += num


@compiled
def composite_tiles_backward(
    ticket: Array,
    starts: Array,
    entries: Array,
    records: Array,
    channels: Array,
    background: Array,
    width: int,
    height: int,
    accumulation: Array,
    last: Array,
    masks: Array,
    ends: Array,
    to_picture: Array,
    to_accumulation: Array,
    to_depth: Array,
    gradients: Array,
) -> None:
    """What one thread does for `composite_backward`: tile after tile, until there are no more."""
    num = channels.shape[1]
    tiles_x = (width + TILE - 1) // TILE
    tiles = len(starts) - 1
    with_depth = len(to_depth) > 0
    light = np.empty(PIXELS, np.float32)
    behind = np.empty(PIXELS, np.float32)
    tile_depth = np.zeros(PIXELS, np.float32)
    to_sums = np.empty(PIXELS * num, np.float32)
    weights = np.empty(PIXELS, np.float32)
    blocks = np.empty(BLOCKS, np.int64)
    while True:
        t = take_ticket(ticket)
        if t >= tiles:
            break
        if ends[t] == starts[t]:
            continue
        tile_y = t // tiles_x
        tile_x = t - tile_y * tiles_x
        read_tile(to_picture, num, tile_x, tile_y, width, height, to_sums)
        read_tile(accumulation, 1, tile_x, tile_y, width, height, light)
        read_tile(to_accumulation, 1, tile_x, tile_y, width, height, behind)
        if with_depth:
            read_tile(to_depth, 1, tile_x, tile_y, width, height, tile_depth)
        for p in range(PIXELS):
            light[p] = np.float32(1) - light[p]
            gain = -behind[p]
            if len(background) > 0:
                s = p // LANES * LANES * num + p % LANES
                for k in range(num):
                    gain += background[k] * to_sums[s + k * LANES]
            behind[p] = gain * light[p]
        composite_tile_backward(
            tile_x,
            tile_y,
            starts[t],
            ends[t],
            entries,
            records,
            channels,
            with_depth,
            light,
            behind,
            to_sums,
            tile_depth,
            last,
            t * PIXELS,
            masks,
            weights,
            blocks,
            gradients,
        )


@threads
def composite_backward(
    workers: int,
    ticket: Array,
    starts: Array,
    entries: Array,
    records: Array,
    channels: Array,
    background: Array,
    width: int,
    height: int,
    accumulation: Array,
    last: Array,
    masks: Array,
    ends: Array,
    to_picture: Array,
    to_accumulation: Array,
    to_depth: Array,
    gradients: Array,
) -> None:
    """Fills gradients [entries, SUMS + C] where masks are not 0.

    to_picture: [H * W * C], to_accumulation: [H * W], to_depth: [H * W] of the sum of weighted depths, or [0].
    """
    for _ in prange(workers):
        composite_tiles_backward(
            ticket,
            starts,
            entries,
            records,
            channels,
            background,
            width,
            height,
            accumulation,
            last,
            masks,
            ends,
            to_picture,
            to_accumulation,
            to_depth,
            gradients,
        )


@threads
def gather(
    order: Array,
    sizes: Array,
    places: Array,
    masks: Array,
    records: Array,
    gradients: Array,
    to_means2d: Array,
    to_conics: Array,
    to_opacities: Array,
    to_depths: Array,
    to_channels: Array,
) -> None:
    """Adds up gradients [entries, SUMS + C] for each Gaussian that was seen; those of the others are zero before."""
    num = to_channels.shape[1]
    row_length = SUMS + num
    chunks = (len(order) + CHUNK - 1) // CHUNK
    for chunk in prange(chunks):
        sums = np.empty(row_length, np.float32)
        for k in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(order))):
            i = order[k]
            for m in range(row_length):
                sums[m] = 0
            for n in range(sizes[k], sizes[k + 1]):
                j = places[n]
                if masks[j] != 0:
                    o = j * row_length
                    for m in range(row_length):
                        sums[m] += gradients[o + m]
            r = i * RECORD
            a, b, c, opacity = records[r + 2], records[r + 3], records[r + 4], records[r + 5]
            to_means2d[i, 0] = a * sums[1] + b * sums[2]
            to_means2d[i, 1] = b * sums[1] + c * sums[2]
            to_conics[i, 0] = np.float32(-0.5) * sums[3]
            to_conics[i, 1] = -sums[4]
            to_conics[i, 2] = np.float32(-0.5) * sums[5]
            to_opacities[i] = sums[0] / opacity
            to_depths[i] = sums[6]
            for m in range(num):
                to_channels[i, m] = sums[SUMS + m]


@compiled
def uplift_tile(
    tile_x: int,
    tile_y: int,
    first: int,
    end: int,
    entries: Array,
    records: Array,
    light: Array,
    values: Array,
    num: int,
    weights: Array,
    blocks: Array,
    masks: Array,
    shares: Array,
) -> None:
    """Writes for each entry the sum of its contributions and of contributions times values: shares [entries, 1 + num].

    light: transmittance [256], 0 outside the picture.
    """
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    alive = 0
    for block in range(BLOCKS):
        if holds_anywhere(load(light, block * LANES) > zero):
            alive += 1
    for j in range(first, end):
        masks[j] = 0
        if alive == 0:
            continue
        i = entries[j]
        r = i * RECORD
        x, y = records[r] - np.float32(tile_x * TILE), records[r + 1] - np.float32(tile_y * TILE)
        left, right = block_range(x, records[r + 7], 4, 4)
        top, bottom = block_range(y, records[r + 8], 2, 8)
        a, b, c = (
            splat(np.float32(0.5) * records[r + 2]),
            splat(records[r + 3]),
            splat(np.float32(0.5) * records[r + 4]),
        )
        opacity, largest = splat(records[r + 5]), splat(records[r + 6])
        sum_weights = zero
        used = 0
        for row in range(top, bottom + 1):
            dy = rows() + splat(np.float32(2 * row) + np.float32(0.5) - y)
            by, cyy = b * dy, c * dy * dy
            for column in range(left, right + 1):
                block = row * 4 + column
                p = block * LANES
                before = load(light, p)
                dx = columns() + splat(np.float32(4 * column) + np.float32(0.5) - x)
                sigma = multiply_add(multiply_add(a, dx, by), dx, cyy)
                if not holds_anywhere((sigma <= largest) & (before > zero)):
                    continue
                alpha = smaller(
                    opacity * exponential(zero - smaller(larger(sigma, zero), splat(80.0))), splat(MAX_ALPHA)
                )
                alpha = select(alpha >= splat(MIN_ALPHA), alpha, zero)
                after = before * (one - alpha)
                goes_on = after > splat(MIN_TRANSMITTANCE)
                weight = select(goes_on, before * alpha, zero)
                after = select(goes_on, after, zero)
                store(light, p, after)
                if not holds_anywhere(after > zero):
                    alive -= 1
                if holds_anywhere(weight > zero):
                    store(weights, used * LANES, weight)
                    blocks[used] = p * num
                    used += 1
                    sum_weights = sum_weights + weight
        if used > 0:
            masks[j] = 1
            o = j * (1 + num)
            shares[o] = total(sum_weights)
            add_contributions(used, weights, blocks, values, num, shares, o + 1)


@compiled
def uplift_tiles(
    ticket: Array,
    starts: Array,
    entries: Array,
    records: Array,
    values: Array,
    num: int,
    width: int,
    height: int,
    masks: Array,
    shares: Array,
) -> None:
    """What one thread does for `uplift`: tile after tile, until there are no more."""
    tiles_x = (width + TILE - 1) // TILE
    tiles = len(starts) - 1
    light = np.empty(PIXELS, np.float32)
    tile_values = np.empty(PIXELS * num, np.float32)
    weights = np.empty(PIXELS, np.float32)
    blocks = np.empty(BLOCKS, np.int64)
    while True:
        t = take_ticket(ticket)
        if t >= tiles:
            break
        tile_y = t // tiles_x
        tile_x = t - tile_y * tiles_x
        read_tile(values, num, tile_x, tile_y, width, height, tile_values)
        for y in range(TILE):
            for x in range(TILE):
                p = ((y // 2) * 4 + x // 4) * LANES + (y % 2) * 4 + x % 4
                light[p] = 1 if tile_x * TILE + x < width and tile_y * TILE + y < height else 0
        uplift_tile(
            tile_x,
            tile_y,
            starts[t],
            starts[t + 1],
            entries,
            records,
            light,
            tile_values,
            num,
            weights,
            blocks,
            masks,
            shares,
        )


@threads
def uplift(
    workers: int,
    ticket: Array,
    starts: Array,
    entries: Array,
    records: Array,
    values: Array,
    num: int,
    width: int,
    height: int,
    masks: Array,
    shares: Array,
) -> None:
    """Fills masks [entries], whether an entry contributes, and shares [entries, 1 + num] of those that do."""
    for _ in prange(workers):
        uplift_tiles(ticket, starts, entries, records, values, num, width, height, masks, shares)


@threads
def gather_shares(
    order: Array, sizes: Array, places: Array, masks: Array, shares: Array, sums: Array, contributions: Array
) -> None:
    """Adds up shares [entries, 1 + K] for each Gaussian that was seen: sums [N, K] and contributions [N]."""
    num = sums.shape[1]
    chunks = (len(order) + CHUNK - 1) // CHUNK
    for chunk in prange(chunks):
        for k in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(order))):
            i = order[k]
            for n in range(sizes[k], sizes[k + 1]):
                j = places[n]
                if masks[j] != 0:
                    o = j * (1 + num)
                    contributions[i] += shares[o]
                    for m in range(num):
                        sums[i, m] += shares[o + 1 + m]
