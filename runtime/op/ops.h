/*
** The op table: one line an op. OP(name, in_min, in_max, outs, flags, attrs, keep_in, keep_out,
** infer, work, fixed, code, formula). `code` names NI_R(ni_code_<code>); infer, work, fixed name
** ni_infer_<infer>, ni_work_<work>, ni_fixed_<fixed> (`none`: NULL).
** Shapes: [..] any rows, w the last dimension. Attribute presets stand after '='.
*/

/* elementwise.c: operands broadcast as in NumPy over feature dimensions; a value in no space serves
   every row */
OP(neg, 1, 1, 1, 0, "", 0, 0, unary, none, none, neg, "-x")
OP(exp, 1, 1, 1, 0, "", 0, 1, unary, none, none, exp, "e^x")
OP(log, 1, 1, 1, 0, "", 1, 0, unary, none, none, log, "ln x")
OP(sqrt, 1, 1, 1, 0, "", 0, 1, unary, none, none, sqrt, "x^(1/2)")
OP(square, 1, 1, 1, 0, "", 1, 0, unary, none, none, square, "x*x")
OP(abs, 1, 1, 1, 0, "", 1, 0, unary, none, none, abs, "|x|; gradient 0 at 0")
OP(reciprocal, 1, 1, 1, 0, "", 0, 1, unary, none, none, reciprocal, "1/x")
OP(sin, 1, 1, 1, 0, "", 1, 0, unary, none, none, sin, "sin x")
OP(cos, 1, 1, 1, 0, "", 1, 0, unary, none, none, cos, "cos x")
OP(tanh, 1, 1, 1, 0, "", 0, 1, unary, none, none, tanh, "tanh x")
OP(sigmoid, 1, 1, 1, 0, "", 0, 1, unary, none, none, sigmoid, "1/(1+e^-x)")
OP(relu, 1, 1, 1, 0, "", 0, 1, unary, none, none, relu, "max(x,0); gradient 0 at 0")
OP(leaky_relu, 1, 1, 1, 0, "alpha=0.01", 1, 0, unary, none, none, leaky_relu, "x if x>0 else alpha*x")
OP(elu, 1, 1, 1, 0, "alpha=1", 1, 1, unary, none, none, elu, "x if x>0 else alpha*(e^x-1)")
OP(gelu, 1, 1, 1, 0, "", 1, 0, unary, none, none, gelu, "x*Phi(x), Phi the normal distribution")
OP(softplus, 1, 1, 1, 0, "", 1, 0, unary, none, none, softplus, "ln(1+e^x)")
OP(softsign, 1, 1, 1, 0, "", 1, 0, unary, none, none, softsign, "x/(1+|x|)")
OP(hard_sigmoid, 1, 1, 1, 0, "alpha=0.2 beta=0.5", 1, 0, unary, none, none, hard_sigmoid, "min(max(alpha*x+beta,0),1)")
OP(clamp, 1, 1, 1, 0, "low high", 1, 0, unary, none, none, clamp, "min(max(x,low),high); gradient inside only")
OP(stop_gradient, 1, 1, 1, NI_NOGRAD, "", 0, 0, copy, none, none, copy, "x, but no gradient flows back")
OP(cast, 1, 1, 1, NI_NOGRAD, "dtype", 0, 0, cast, none, none, cast, "f32 (dtype 0) or i32 (dtype 1, rounded towards 0)")
OP(add, 2, 2, 1, NI_ALIGN, "", 0, 0, binary, none, none, add, "a+b")
OP(sub, 2, 2, 1, NI_ALIGN, "", 0, 0, binary, none, none, sub, "a-b")
OP(mul, 2, 2, 1, NI_ALIGN, "", 3, 0, binary, none, none, mul, "a*b")
OP(div, 2, 2, 1, NI_ALIGN, "", 2, 1, binary, none, none, div, "a/b")
OP(pow, 2, 2, 1, NI_ALIGN, "", 3, 1, binary, none, none, pow, "a^b, a > 0 where b gets a gradient")
OP(maximum, 2, 2, 1, NI_ALIGN, "", 3, 0, binary, none, none, maximum, "the larger; a's gradient on a tie")
OP(minimum, 2, 2, 1, NI_ALIGN, "", 3, 0, binary, none, none, minimum, "the smaller; a's gradient on a tie")
OP(equal, 2, 2, 1, NI_ALIGN | NI_NOGRAD, "", 0, 0, compare, none, none, equal, "1 if a = b else 0; i32 or f32 operands, f32 result")
OP(not_equal, 2, 2, 1, NI_ALIGN | NI_NOGRAD, "", 0, 0, compare, none, none, not_equal, "1 if a != b else 0")
OP(less, 2, 2, 1, NI_ALIGN | NI_NOGRAD, "", 0, 0, compare, none, none, less, "1 if a < b else 0")
OP(less_equal, 2, 2, 1, NI_ALIGN | NI_NOGRAD, "", 0, 0, compare, none, none, less_equal, "1 if a <= b else 0")
OP(greater, 2, 2, 1, NI_ALIGN | NI_NOGRAD, "", 0, 0, compare, none, none, greater, "1 if a > b else 0")
OP(greater_equal, 2, 2, 1, NI_ALIGN | NI_NOGRAD, "", 0, 0, compare, none, none, greater_equal, "1 if a >= b else 0")
OP(where, 3, 3, 1, NI_ALIGN, "", 1, 0, where, none, none, where, "a where c != 0, else b; a and b f32 or both i32 (then no gradient)")
OP(bce_with_logits, 2, 2, 1, NI_ALIGN, "", 3, 0, same, none, none, bce_with_logits, "max(x,0) - x*y + ln(1+e^-|x|), y in 0..1")
OP(dropout, 2, 2, 1, NI_RANDOM, "", 0, 0, dropout, dropout, none, dropout, "x*m/(1-rate), m 0 with probability rate (input 2, a number) while learning; x else")
OP(uniform, 1, 1, 1, NI_RANDOM | NI_NOGRAD, "", 0, 0, copy, none, none, uniform, "numbers in [0,1), shaped like x")

/* shape.c: axes count from 0 over the feature dimensions */
OP(concat, 1, NEAP_MAX_INPUTS, 1, NI_ALIGN, "axis=0", 0, 0, concat, none, none, concat, "the inputs side by side along a feature axis")
OP(slice, 1, 1, 1, 0, "axis from to", 0, 0, slice, none, none, slice, "x[from..to) along a feature axis")
OP(reshape, 1, 1, 1, 0, "rank d0=1 d1=1 d2=1", 0, 0, reshape, none, none, reshape, "the same elements with other feature dimensions")
OP(transpose, 1, 1, 1, 0, "a=0 b=1", 0, 0, transpose, none, none, transpose, "two feature axes exchanged")
OP(spread, 1, 1, 1, NI_WHOLE, "space", 0, 0, spread, none, none, spread, "each row repeated for all rows below it in `space`")
OP(reverse, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE, "", 0, 0, reverse, none, none, reverse, "each sequence back to front, within its own length")
OP(fold_time, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE, "space", 0, 0, fold_time, none, none, fold_time, "[T,B,w] -> [T/k,B,k*w]: k steps side by side as one, zeros past the end (Chan et al. 2016)")
OP(padded, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE, "", 0, 0, padded, none, none, padded, "[T,B,w] -> [B,S,w] with S the longest sequence; zeros past the end")
OP(padding_mask, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_NOGRAD, "", 0, 0, padding_mask, none, none, padding_mask, "[T,B,..] -> [B,S]: 1 inside the sequence, 0 past its end")
OP(lengths, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_NOGRAD, "", 0, 0, lengths, none, none, lengths, "[T,B,..] -> [B]: the length of each sequence, f32")

/* reduce.c */
OP(sum, 1, 1, 1, 0, "axis keep=0", 0, 0, reduce, none, none, sum, "sum over a feature axis")
OP(mean, 1, 1, 1, 0, "axis keep=0", 0, 0, reduce, none, none, mean, "mean over a feature axis")
OP(max, 1, 1, 1, 0, "axis keep=0", 1, 1, reduce, none, none, max, "largest over a feature axis; gradient to the first of equals")
OP(softmax, 1, 1, 1, 0, "", 0, 1, unary_last, none, none, softmax, "e^x / sum e^x over the last feature axis")
OP(log_softmax, 1, 1, 1, 0, "", 0, 1, unary_last, none, none, log_softmax, "x - ln sum e^x over the last feature axis")
OP(masked_softmax, 2, 2, 1, NI_ALIGN, "", 0, 1, masked_softmax, none, none, masked_softmax, "softmax over the last axis where the mask is not 0; exactly 0 elsewhere, all 0 if nothing is left")
OP(layer_norm, 3, 3, 1, 0, "eps=1e-5", 3, 0, layer_norm, layer_norm, none, layer_norm, "(x-mean)/sqrt(var+eps)*gain + bias over the last axis (Ba et al. 2016)")
OP(last, 1, 2, 1, NI_WHOLE | NI_TIME | NI_FOLDS, "", 0, 0, last, none, none, last, "[T,B,w] -> [B,w]: the last valid step; input 2 (or 0) for an empty sequence")
OP(sum_time, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_FOLDS, "", 0, 0, over_time, none, none, sum_time, "[T,B,w] -> [B,w]: sum over the valid steps")
OP(mean_time, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_FOLDS, "", 0, 0, over_time, none, none, mean_time, "[T,B,w] -> [B,w]: mean over the valid steps; 0 for an empty sequence")
OP(max_time, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_FOLDS, "", 1, 1, over_time, max_time, none, max_time, "[T,B,w] -> [B,w]: largest over the valid steps; 0 for an empty sequence")
OP(sum_rows, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_FOLDS, "", 0, 0, over_rows, none, none, sum_rows, "sum over all rows -> no space; the same order for any number of threads")
OP(mean_rows, 1, 2, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_FOLDS, "", 3, 1, mean_rows, mean_rows, none, mean_rows, "sum(w*x)/sum(w) over all rows; w (input 2, [..] one number a row) 1 if left out; 0 if sum(w) is 0")

/* lookup.c */
OP(embedding, 2, 2, 1, NI_PICKS, "", 1, 0, embedding, none, none, embedding, "ids [..], table [V,w] -> [..,w]: the row of each id; ids out of 0..V-1 are an error")
OP(gather, 2, 2, 1, NI_ALIGN, "", 2, 0, gather, none, none, gather, "x [..,V,w], ids [..,K] -> [..,K,w]: what stands at each id along the first dimension of the row's x; no K: one id, no w: a number each; x or the ids in no space serve every row; ids out of 0..V-1 are an error")
OP(scatter, 2, 2, 1, NI_ALIGN, "size", 2, 0, scatter, none, none, scatter, "x [..,K], ids [..,K] -> [..,size]: the sum of the x that have each id; ids out of 0..size-1 are an error")
OP(one_hot, 1, 1, 1, NI_NOGRAD, "size", 0, 0, one_hot, none, none, one_hot, "ids [..] -> [..,size], 1 at the id")
OP(hash, 1, 1, 1, NI_NOGRAD, "size", 0, 0, hash, none, none, hash, "ids [..,K] -> i32 [..]: one number in 0..size-1 for the K ids together, their FNV-1a hash of 32 bits (Fowler, Noll, Vo), over the four bytes of each, lowest first, modulo size")
OP(argmax, 1, 1, 1, NI_NOGRAD, "", 0, 0, pick, none, none, argmax, "index of the first largest along the last axis, i32")
OP(sample, 2, 2, 1, NI_RANDOM | NI_NOGRAD, "", 0, 0, sample, none, none, sample, "an index drawn from softmax(x / temperature) (input 2, a number), i32")
OP(cross_entropy, 2, 2, 1, NI_TURNS, "smoothing=0", 3, 0, cross_entropy, cross_entropy, none, cross_entropy, "-ln softmax(x)[id] by row; 0 where id is -1; smoothing spreads that share over all classes")

/* ctc.c crf.c: labels of sequences; a loss for each sequence */
OP(ctc, 2, 2, 1, NI_WHOLE | NI_TIME | NI_FUTURE, "blank=-1 zero=0", 3, 0, ctc, ctc, none, ctc, "-ln of the probability that x [T,B,V] (unnormalised scores) reads as the labels y [U,B], of all ways to do so (Graves et al. 2006) -> [B]; class blank is the blank, -1 the last; labels that need more steps than there are: an error, or 0 with zero=1")
OP(ctc_decode, 1, 1, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_NOGRAD, "blank=-1 beam=0", 0, 0, ctc_decode, ctc_decode, none, ctc_decode, "the labels that x [T,B,V] reads as, i32 [T,B], -1 after the last: beam 0 the likeliest class of each step, read; beam n by prefix beam search (Graves 2012, Hannun et al. 2014)")
OP(crf, 3, 5, 1, NI_WHOLE | NI_TIME | NI_FUTURE, "", 31, 0, crf, crf, none, crf, "-ln of the share of y among all sequences of classes, by e^score (Lafferty et al. 2001) -> [B]: score = start(y_1) + sum x_t(y_t) + sum a(y_t, y_t-1) + stop(y_T); inputs x [T,B,V], y [T,B] (-1: any class), a [V,V] (to, from), [start [V], stop [V]]")
OP(crf_marginals, 2, 4, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_NOGRAD, "", 0, 0, crf_marginals, crf_marginals, none, crf_marginals, "the probability of each class at each step, [T,B,V]; inputs x a [start stop] as of crf")
OP(viterbi, 2, 4, 1, NI_WHOLE | NI_TIME | NI_FUTURE | NI_NOGRAD, "", 0, 0, viterbi, viterbi, none, viterbi, "the sequence of classes with the largest score, i32 [T,B]; inputs x a [start stop] as of crf")

/* product.c */
OP(matmul, 2, 2, 1, 0, "", 3, 0, matmul, none, matmul, matmul, "x [..,K] * w [K,N]; w in no space is packed once")
OP(linear, 2, 3, 1, 0, "", 3, 0, linear, none, linear, linear, "x w^T + b: x [..,K], w [N,K], b [N]")
OP(bmm, 2, 2, 1, NI_ALIGN, "transpose_a=0 transpose_b=0", 3, 0, bmm, none, none, bmm, "a product for each row: a [..,M,K], b [..,K,N]")

/* attention.c: the memory is a sequence space over the same parent as the query's */
OP(attend_dot, 3, 3, 2, 0, "scale=1", 7, 2, attend_dot, attend, none, attend_dot, "a = softmax_s(scale * q.k_s), c = sum a_s v_s: q [..,A], k [S,..,A], v [S,..,M] -> c [..,M], a [..,S]")
OP(attend_additive, 4, 4, 2, 0, "", 15, 2, attend_additive, attend_additive, none, attend_additive, "a = softmax_s(u.tanh(q + k_s)), c = sum a_s v_s (Bahdanau et al. 2015): q, k, v, u [A]")
OP(attend_at, 2, 2, 1, 0, "", 1, 0, attend_at, none, none, attend_at, "c = v_id, 0 where there is no step of that number: ids [..], v [S,..,w] -> c [..,w]")

/* elman.c lstm.c gru.c: whole sequences; x [T,B,I], weights as in PyTorch, first states [B,H] optional */
OP(elman, 3, 6, 2, NI_WHOLE | NI_TIME | NI_RECURRENT, "activation=0", 7, 1, elman, elman, elman, elman, "h = act(W x + b + U h' + c), act tanh (0), relu (1), sigmoid (2) or identity (3) (Elman 1990); inputs x W U [b c h0]; outputs y, last h")
OP(lstm, 3, 7, 3, NI_WHOLE | NI_TIME | NI_RECURRENT, "", 7, 1, lstm, lstm, lstm, lstm, "Hochreiter and Schmidhuber 1997, Gers et al. 2000; blocks i f g o; inputs x W U [b c h0 c0]; outputs y, last h, last c")
OP(gru, 3, 6, 2, NI_WHOLE | NI_TIME | NI_RECURRENT, "reset_before=0", 7, 1, gru, gru, gru, gru, "Cho et al. 2014; blocks r z n; reset after the product as in PyTorch, or before; inputs x W U [b c h0]; outputs y, last h")
