"""The operations of torch that people use in decoders, each in a small decoder: what derivatives are checked on."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.utils.checkpoint import checkpoint

Operation = Callable[[Tensor], Tensor]
# How 32 features are seen: as tokens (B, 4, 8), as signals (B, 4, 8), images (B, 2, 4, 4), volumes (B, 4, 2, 2, 2).
TOKENS, SIGNAL, IMAGE, VOLUME, MATRIX, PAIRS = (4, 8), (4, 8), (2, 4, 4), (4, 2, 2, 2), (2, 4, 4), (2, 16)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same in every run."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Twice(nn.Module):
    """A bilinear layer of the features and themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(32, 32, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)


class Recurrent(nn.Module):
    """The outputs of a recurrent network."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.net = kind(8, 5, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[0]


class Cell(nn.Module):
    """Some steps of a recurrent cell."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell = kind(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for token in x.unbind(1):
            state = self.cell(token, state)
        return state[0] if isinstance(state, tuple) else state


class Attention(nn.Module):
    """Torch's module of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, x, x, need_weights=False)[0]


class Decoded(nn.Module):
    """A layer of a transformer's decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.TransformerDecoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, x.flip(1))


class Cubed(torch.autograd.Function):
    """A custom function in its old form."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * g


class CubedOnce(Cubed):
    """A custom function whose backward pass cannot be differentiated."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * g


def batch_norm() -> nn.Module:
    """In eval mode, with statistics of its own."""
    module = nn.BatchNorm2d(2)
    nn.init.normal_(module.running_mean)
    nn.init.uniform_(module.running_var, 0.5, 2)
    return module


def definite(x: Tensor) -> Tensor:
    """Positive definite matrices of matrices."""
    return x @ x.mT + torch.eye(4, dtype=x.dtype)


CODES, PLACES = numbers(6, 8, seed=1), torch.tensor([3, 0, 2, 1])
GRID = numbers(1, 3, 3, 2, seed=2).clamp(-0.9, 0.9)
THREE, FORMS = numbers(4, 3, seed=5), numbers(3, 4, 4, seed=6)
MASK = torch.tensor([[True, True, False, True]] * 4)

# Name of the group, shape of the features, and its operations: a function of tensors, or a maker of modules.
MODULES: dict[str, tuple[tuple[int, ...], dict[str, Callable[[], nn.Module]]]] = {
    "activations": (
        (32,),
        {
            kind.__name__: kind
            for kind in (
                nn.ReLU,
                nn.LeakyReLU,
                nn.PReLU,
                nn.ReLU6,
                nn.ELU,
                nn.CELU,
                nn.SELU,
                nn.GELU,
                nn.SiLU,
                nn.Mish,
                nn.Tanh,
                nn.Sigmoid,
                nn.LogSigmoid,
                nn.Softplus,
                nn.Softsign,
                nn.Tanhshrink,
                nn.Hardtanh,
                nn.Hardsigmoid,
                nn.Hardswish,
                nn.Hardshrink,
                nn.Softshrink,
                nn.GLU,
            )
        }
        | {
            "GELU(tanh)": lambda: nn.GELU("tanh"),
            "RReLU, eval": nn.RReLU,
            "Threshold": lambda: nn.Threshold(0.1, 0.0),
            "Softmax": lambda: nn.Softmax(1),
            "Softmin": lambda: nn.Softmin(1),
            "LogSoftmax": lambda: nn.LogSoftmax(1),
            "Dropout, eval": nn.Dropout,
        },
    ),
    "normalizations": (
        IMAGE,
        {
            "BatchNorm2d, eval": batch_norm,
            "LayerNorm": lambda: nn.LayerNorm((2, 4, 4)),
            "RMSNorm": lambda: nn.RMSNorm((4, 4)),
            "GroupNorm": lambda: nn.GroupNorm(2, 2),
            "InstanceNorm2d": lambda: nn.InstanceNorm2d(2, affine=True),
            "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
        },
    ),
    "layers": (
        (32,),
        {
            "Linear": lambda: nn.Linear(32, 40),
            "Bilinear": Twice,
            "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32)),
            "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(32, 32)),
        },
    ),
    "convolutions": (
        IMAGE,
        {
            "Conv2d": lambda: nn.Conv2d(2, 3, 3, padding=1),
            "Conv2d, circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
            "Conv2d, groups": lambda: nn.Conv2d(2, 4, 3, groups=2, dilation=1),
            "ConvTranspose2d": lambda: nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1),
            "PixelShuffle": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.PixelShuffle(2)),
            "PixelUnshuffle": lambda: nn.PixelUnshuffle(2),
            "Unfold": lambda: nn.Unfold(2),
            "Fold": lambda: nn.Sequential(nn.Unfold(2), nn.Fold((4, 4), 2)),
            "ChannelShuffle": lambda: nn.ChannelShuffle(2),
            "ReflectionPad2d": lambda: nn.ReflectionPad2d(1),
            "ReplicationPad2d": lambda: nn.ReplicationPad2d(1),
            "ZeroPad2d": lambda: nn.ZeroPad2d(1),
        },
    ),
    "convolutions of signals": (
        SIGNAL,
        {
            "Conv1d": lambda: nn.Conv1d(4, 3, 3),
            "ConvTranspose1d": lambda: nn.ConvTranspose1d(4, 3, 4, stride=2),
            "Upsample, linear": lambda: nn.Upsample(scale_factor=2, mode="linear"),
        },
    ),
    "convolutions of volumes": (
        VOLUME,
        {
            "Conv3d": lambda: nn.Conv3d(4, 3, 2),
            "ConvTranspose3d": lambda: nn.ConvTranspose3d(4, 3, 2, stride=2),
            "Upsample, trilinear": lambda: nn.Upsample(scale_factor=2, mode="trilinear"),
            "AvgPool3d": lambda: nn.AvgPool3d(2),
            "MaxPool3d": lambda: nn.MaxPool3d(2),
        },
    ),
    "pooling and resizing": (
        IMAGE,
        {
            "MaxPool2d": lambda: nn.MaxPool2d(2),
            "AvgPool2d": lambda: nn.AvgPool2d(2),
            "LPPool2d": lambda: nn.LPPool2d(2, 2),
            "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(3),
            "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(3),
            "Upsample, nearest": lambda: nn.Upsample(scale_factor=2),
            "Upsample, nearest-exact": lambda: nn.Upsample(scale_factor=2, mode="nearest-exact"),
            "Upsample, bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
            "Upsample, bicubic": lambda: nn.Upsample(scale_factor=2, mode="bicubic", align_corners=True),
        },
    ),
    "sequences": (
        TOKENS,
        {
            "RNN": lambda: Recurrent(nn.RNN),
            "GRU": lambda: Recurrent(nn.GRU),
            "LSTM": lambda: Recurrent(nn.LSTM),
            "RNNCell": lambda: Cell(nn.RNNCell),
            "GRUCell": lambda: Cell(nn.GRUCell),
            "LSTMCell": lambda: Cell(nn.LSTMCell),
            "MultiheadAttention": Attention,
            "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True),
            "TransformerDecoderLayer": Decoded,
        },
    ),
}
FUNCTIONS: dict[str, tuple[tuple[int, ...], dict[str, Operation]]] = {
    "attention": (
        (2, 4, 4),
        {
            "scaled_dot_product_attention": lambda x: f.scaled_dot_product_attention(x, x.flip(-1), x),
            "scaled_dot_product_attention, causal": lambda x: f.scaled_dot_product_attention(x, x, x, is_causal=True),
            "scaled_dot_product_attention, masked": lambda x: f.scaled_dot_product_attention(x, x, x, attn_mask=MASK),
            "softmax(q k) v": lambda x: (x @ x.flip(1).mT).softmax(-1) @ x,
        },
    ),
    "group_norm behind a transpose": (
        TOKENS,
        {
            "group_norm of a strided view": lambda x: f.group_norm(x.transpose(1, 2), 2),
            "layer_norm of a strided view": lambda x: f.layer_norm(x.transpose(1, 2), (4,)),
            "instance_norm of a strided view": lambda x: f.instance_norm(x.transpose(1, 2)),
        },
    ),
    "reductions": (
        TOKENS,
        {
            "sum": lambda x: x.sum(1),
            "mean": lambda x: x.mean(1),
            "prod": lambda x: x.prod(1),
            "var": lambda x: x.var(1),
            "std": lambda x: x.std(1),
            "norm": lambda x: x.norm(dim=1),
            "linalg.vector_norm, p = 3": lambda x: torch.linalg.vector_norm(x, 3, dim=1),
            "amax": lambda x: x.amax(1),
            "max": lambda x: x.max(1).values,
            "median": lambda x: x.median(1).values,
            "quantile": lambda x: x.quantile(0.3, dim=1),
            "logsumexp": lambda x: x.logsumexp(1),
            "cumsum": lambda x: x.cumsum(1),
            "cumprod": lambda x: x.cumprod(1),
            "logcumsumexp": lambda x: x.logcumsumexp(1),
            "cummax": lambda x: x.cummax(1).values,
            "sort": lambda x: x.sort(1).values,
            "topk": lambda x: x.topk(2, dim=1).values,
            "normalize": lambda x: f.normalize(x, dim=1),
            "diff": lambda x: x.diff(dim=1),
            "trapezoid": lambda x: torch.trapezoid(x, dim=1),
        },
    ),
    "distances": (
        TOKENS,
        {
            "cdist": lambda x: torch.cdist(x, CODES),
            "cdist of x and x, squared": lambda x: torch.cdist(x, x).square(),
            "cdist, by products": lambda x: torch.cdist(x, CODES, compute_mode="use_mm_for_euclid_dist"),
            "cdist, p = 1": lambda x: torch.cdist(x, 5 * CODES, p=1),
            "cdist, p = 3": lambda x: torch.cdist(x, CODES, p=3),
            "cdist, p = inf": lambda x: torch.cdist(x, CODES, p=torch.inf),
            "pairwise_distance": lambda x: f.pairwise_distance(x, x.flip(2)),
            "cosine_similarity": lambda x: f.cosine_similarity(x, CODES[:4], dim=-1),
            "pdist": lambda x: torch.stack([f.pdist(row) for row in x]),
        },
    ),
    "indexing": (
        TOKENS,
        {
            "index": lambda x: x[:, [2, 0]],
            "index_select": lambda x: x.index_select(1, PLACES),
            "gather": lambda x: x.gather(1, PLACES[None, :, None].expand(len(x), 4, 8)),
            "scatter": lambda x: torch.zeros_like(x).scatter(1, PLACES[None, :, None].expand(len(x), 4, 8), x),
            "scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, PLACES[None, :, None].expand(len(x), 4, 8), x),
            "index_add": lambda x: torch.ones_like(x).index_add(1, PLACES, x),
            "index_put": lambda x: _put(x),
            "take_along_dim": lambda x: x.take_along_dim(x.detach().argsort(1), 1),
            "masked_fill": lambda x: x.masked_fill(torch.eye(4, 8).bool(), 0.5),
            "where": lambda x: torch.where(x > 0, x.sin(), x.square()),
            "embedding by soft codes": lambda x: (x @ CODES.mT).softmax(-1) @ CODES,
            "embedding of the row's number": lambda x: x + f.embedding(PLACES, CODES),
            "one_hot of positions": lambda x: x.mT @ f.one_hot(PLACES, 4).to(x),
            "roll": lambda x: x.roll(1, 1),
            "flip": lambda x: x.flip(1),
            "tril": lambda x: x.tril(),
            "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
            "unfold": lambda x: x.unfold(2, 3, 2),
            "pad": lambda x: f.pad(x, (1, 2)),
            "stack, cat, chunk": lambda x: torch.stack(x.chunk(2, 1), 1),
            "permute, reshape": lambda x: x.permute(0, 2, 1).reshape(len(x), -1),
            "as_strided": lambda x: x.contiguous().as_strided((len(x), 16), (32, 2)),
        },
    ),
    "arithmetic": (
        (32,),
        {
            "exp, log, sqrt": lambda x: (x.exp() + 1).log().sqrt(),
            "pow": lambda x: (x.square() + 1).pow(1.7),
            "sin, cos, tan": lambda x: x.sin() + x.cos() * (x / 3).tan(),
            "asin, acos, atan2": lambda x: (x / 9).asin() + (x / 9).acos() * torch.atan2(x, x + 9),
            "sinh, cosh, asinh": lambda x: x.sinh() + x.cosh() * x.asinh(),
            "acosh, atanh": lambda x: (x.square() + 2).acosh() + (x / 9).atanh(),
            "erf, erfc, erfinv": lambda x: x.erf() + x.erfc() * (x / 9).erfinv(),
            "lgamma, digamma": lambda x: (x.square() + 1).lgamma() + (x.square() + 1).digamma(),
            "i0e, i1e": lambda x: torch.special.i0e(x) + torch.special.i1e(x),
            "sinc": lambda x: x.sinc(),
            "log1p, expm1": lambda x: x.square().log1p() + x.expm1(),
            "logit": lambda x: x.sigmoid().logit() * x,
            "xlogy": lambda x: torch.special.xlogy(x, x.square() + 1),
            "logaddexp": lambda x: torch.logaddexp(x, 2 * x),
            "hypot": lambda x: torch.hypot(x, x + 3),
            "abs": lambda x: x.abs(),
            "clamp": lambda x: x.clamp(-0.7, 0.7),
            "minimum, maximum": lambda x: torch.minimum(x, x.square()) + torch.maximum(x, x.sin()),
            "lerp": lambda x: torch.lerp(x, x.square(), 0.3),
            "addcmul, addcdiv": lambda x: torch.addcmul(x, x, x.sin()) + torch.addcdiv(x, x, x.square() + 1),
            "remainder": lambda x: x.remainder(0.9),
            "complex numbers": lambda x: torch.polar(x.exp(), x).imag + torch.complex(x, x).abs(),
            "gumbel softmax without noise": lambda x: (x / 0.5).softmax(1),
        },
    ),
    "products": (
        MATRIX,
        {
            "einsum": lambda x: torch.einsum("bcij,bcjk->bik", x, x.sin()),
            "matmul": lambda x: x @ x.mT,
            "bmm": lambda x: torch.bmm(x[:, 0], x[:, 1]),
            "baddbmm": lambda x: torch.baddbmm(x[:, 0], x[:, 0], x[:, 1]),
            "tensordot": lambda x: torch.tensordot(x, THREE, 1),
            "kron": lambda x: torch.stack([torch.kron(*row) for row in x]),
            "cross": lambda x: torch.linalg.cross(x[..., :3], x[..., 1:]),
            "bilinear": lambda x: f.bilinear(x, x, FORMS),
        },
    ),
    "linear algebra": (
        MATRIX,
        {
            "linalg.solve": lambda x: torch.linalg.solve(definite(x), x),
            "linalg.inv": lambda x: torch.linalg.inv(definite(x)),
            "linalg.cholesky": lambda x: torch.linalg.cholesky(definite(x)),
            "cholesky_solve": lambda x: torch.cholesky_solve(x, torch.linalg.cholesky(definite(x))),
            "linalg.solve_triangular": lambda x: torch.linalg.solve_triangular(
                torch.linalg.cholesky(definite(x)), x, upper=False
            ),
            "linalg.det": lambda x: torch.linalg.det(definite(x)),
            "linalg.slogdet": lambda x: torch.linalg.slogdet(definite(x)).logabsdet,
            "linalg.qr": lambda x: torch.linalg.qr(definite(x)).R,
            "linalg.eigh": lambda x: torch.linalg.eigh(definite(x)).eigenvalues,
            "linalg.svdvals": lambda x: torch.linalg.svdvals(definite(x)),
            "linalg.pinv": lambda x: torch.linalg.pinv(definite(x)),
            "linalg.lstsq": lambda x: torch.linalg.lstsq(definite(x), x).solution,
            "linalg.matrix_exp": lambda x: torch.linalg.matrix_exp(x / 4),
            "linalg.householder_product": lambda x: torch.linalg.householder_product(x, x[..., 0].tanh()),
            "matrix_power": lambda x: torch.linalg.matrix_power(x, 3),
            "linalg.norm, nuclear": lambda x: torch.linalg.norm(definite(x), "nuc", dim=(-2, -1)),
        },
    ),
    "Fourier transforms": (
        TOKENS,
        {
            "fft": lambda x: torch.view_as_real(torch.fft.fft(x)),
            "rfft": lambda x: torch.fft.rfft(x).abs(),
            "irfft": lambda x: torch.fft.irfft(torch.complex(x, x.sin())),
            "fft2": lambda x: torch.fft.ifft2(torch.fft.fft2(x) * 1j).imag,
            "stft": lambda x: torch.stft(x.flatten(1), 8, window=x.new_ones(8), return_complex=True).abs(),
        },
    ),
    "warps": (
        IMAGE,
        {
            "grid_sample, bilinear": lambda x: f.grid_sample(x, GRID.expand(len(x), -1, -1, -1), align_corners=False),
            "grid_sample at moving places": lambda x: f.grid_sample(
                x, 0.4 * x[:, :, :3, :3].permute(0, 2, 3, 1).tanh(), align_corners=True
            ),
            "grid_sample at moving places, bicubic": lambda x: f.grid_sample(
                x, 0.4 * x[:, :, :3, :3].permute(0, 2, 3, 1).tanh(), mode="bicubic", align_corners=True
            ),
            "affine_grid": lambda x: f.affine_grid(x[:, :, :1, :3].squeeze(2), (len(x), 1, 3, 3), align_corners=False),
            "interpolate, area": lambda x: f.interpolate(x, 3, mode="area"),
            "interpolate, bicubic, antialias": lambda x: f.interpolate(x, 3, mode="bicubic", antialias=True),
            "max_unpool2d": lambda x: f.max_unpool2d(*f.max_pool2d(x, 2, return_indices=True), 2),
        },
    ),
    "control": (
        (32,),
        {
            "torch.utils.checkpoint": lambda x: checkpoint(torch.sin, x, use_reentrant=False),
            "torch.utils.checkpoint, reentrant": lambda x: checkpoint(torch.sin, x, use_reentrant=True),
            "custom Function without jvp": Cubed.apply,
            "custom Function, differentiable once": CubedOnce.apply,
            "torch.no_grad": torch.no_grad()(torch.sin),
            "if on values": lambda x: x.sin() if bool((x.detach() < 1e9).all()) else x,
            "NumPy": lambda x: _by_numpy(x),
            "an in-place activation": lambda x: f.elu_(x * 1.0),
            "the argument written to": lambda x: x.mul_(2).sin(),
            "torch.func.vmap": lambda x: torch.func.vmap(torch.sin)(x),
            "torch.func.jacrev": lambda x: torch.func.vmap(torch.func.grad(lambda row: row.square().sum().sin()))(x),
        },
    ),
}
REFUSED: dict[str, Operation] = {
    "detach": lambda x: x.sin().detach(),
    "data": lambda x: x.sin().data,
    "torch.inference_mode": torch.inference_mode()(torch.sin),
    "round": lambda x: (9 * x).round(),
    "floor, ceil": lambda x: (9 * x).floor() + (9 * x).ceil(),
    "argmax": lambda x: f.one_hot((20 * x).sin().argmax(1), 32).to(x),
    "sign": lambda x: (20 * x).sin().sign(),
    "heaviside": lambda x: torch.heaviside((20 * x).sin(), x.new_tensor(0.5)),
    "bernoulli's mode": lambda x: ((20 * x).sin() > 0).to(x),
    "uint8": lambda x: (255 * x.sigmoid()).to(torch.uint8).to(x),
}


class Shaped(nn.Module):
    """An operation on 32 features of some shape, between a smooth layer and rows."""

    def __init__(self, operation: Operation, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.front, self.operation, self.shape = nn.Linear(2, 32), operation, shape

    def forward(self, z: Tensor) -> Tensor:
        """``(B, 2) -> (B, D)``."""
        x = f.softplus(self.front(z)) - 0.7
        return self.operation(x.view(len(x), *self.shape)).flatten(1)


def _put(x: Tensor) -> Tensor:
    filled = torch.zeros(len(x), 6, 8, dtype=x.dtype)
    filled[:, PLACES] = x
    return filled


def _by_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.sin(x.detach().numpy()))


def decoders() -> dict[str, dict[str, nn.Module]]:
    """Every operation's decoder, by group and name, in float64 and eval mode."""
    made: dict[str, dict[str, nn.Module]] = {}
    for group, (shape, makers) in MODULES.items():
        made[group] = {}
        for name, maker in makers.items():
            torch.manual_seed(0)
            made[group][name] = _decoder(maker(), shape)
    for group, (shape, operations) in FUNCTIONS.items():
        made[group] = {name: _decoder(operation, shape) for name, operation in operations.items()}
    return made


def refused() -> dict[str, nn.Module]:
    """The decoders that drop their derivatives."""
    return {name: _decoder(operation, (32,)) for name, operation in REFUSED.items()}


def _decoder(operation: Operation, shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    return Shaped(operation, shape).double().eval().requires_grad_(False)
