//! Eight running sums side by side: what the compiler turns into one vector register.

/// How many.
pub(crate) const LANES: usize = 8;

/// Element `i` of a vector belongs to lane `i % LANES`, and each lane takes its elements in order.
pub(crate) type Lanes = [f32; LANES];

/// The sum of all lanes, in one order.
#[inline(always)]
pub(crate) fn sum(lanes: Lanes) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// The sum of the products of `a` and `b`, which are equally long.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane = a.mul_add(*b, *lane);
    }
    sum(lanes)
}
