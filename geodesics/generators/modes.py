"""Derivatives of generators by forward and by reverse mode.

Everything here works on all rows at once and without a D x D object. Who calls it has the formulas of
`geodesics.generators.torch_repairs` in place. Forward mode is the fastest where the latent dimension is small. Reverse
mode is for decoders that have no forward derivative. It goes by `torch.autograd.grad` rather than `torch.func`, which
takes neither custom functions in their old form nor `torch.utils.checkpoint`; so these derivatives cannot themselves be
differentiated by `torch.func`: they refuse, and who asked takes another way.
"""

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from geodesics.generators.protocols import Generator

# Outputs of one backward pass.
_OUTPUTS = 64


def basis_tangents(z: Tensor) -> Tensor:
    """The d constant tangent fields e_1, ..., e_d on the rows of z ``(B, d)``, as ``(d, B, d)``."""
    d = z.shape[-1]
    return torch.eye(d, dtype=z.dtype, device=z.device)[:, None, :].expand(d, *z.shape)


class Forward:
    """First derivatives by ``jvp``, vmapped over tangents of the whole batch.

    So batched modules (convolutions, ``view(z.shape[0], ...)``) work as they are. Some d + 1 evaluations.
    """

    words = "forward mode"

    def jacobian(self, generator: Generator, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """F(z) ``(B, D)`` and the derivatives along tangents ``(t, B, d)``, as ``(t, B, D)``."""
        # torch's annotation of out_dims leaves out None, which its documentation allows
        along = vmap(lambda tangent: jvp(generator, (z,), (tangent,)), out_dims=(None, 0))  # type: ignore[arg-type]
        F, J = along(tangents)[:2]
        return F, J

    def along(self, generator: Generator, z: Tensor, v: Tensor) -> Tensor:
        """J(z) v, ``(B, D)``."""
        # Dual numbers cannot be written over expanded rows.
        product: Tensor = jvp(generator, (z.contiguous(),), (v.contiguous(),))[1]
        return product


class ForwardByRows:
    """As `Forward`, for what `vmap` does not take: each tangent has its own copy of the rows."""

    words = "forward mode, without vmap"

    def jacobian(self, generator: Generator, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        count, rows = tangents.shape[:2]
        F, J = jvp(generator, (z.repeat(count, 1),), (tangents.flatten(0, 1).contiguous(),))[:2]
        return F[:rows], J.unflatten(0, (count, rows))

    def along(self, generator: Generator, z: Tensor, v: Tensor) -> Tensor:
        return Forward().along(generator, z, v)


class ForwardOverReverse:
    """Second derivatives by forward mode through a reverse-mode gradient.

    The Hessian H(w) of ``<w, F(z)>`` is linear in w, and ``<w, F''[u, v]> = u^T H(w) v``: so F''[u, v] is what the
    transpose of ``w -> H(w) v`` makes of u. H(w) v is a forward-mode pass through a reverse-mode gradient, and its
    transpose one more reverse pass; w is any constant, since only the dependence on it is asked for.

    Two nested forward-mode passes would be shorter, but torch's are silently wrong for some operations (see
    `geodesics.generators.torch_repairs`). The cost is much the same, that of some six evaluations.
    """

    words = "forward over reverse mode"

    def along(self, generator: Generator, z: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """J v and F''[u, v], ``(B, D)`` both."""
        z, u, v = z.contiguous(), u.contiguous(), v.contiguous()  # dual numbers, as above

        def gradient(point: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
            F, pull = vjp(generator, point)[:2]
            return pull(w)[0], F

        def hessian_times_v(w: Tensor) -> tuple[Tensor, Tensor]:
            return jvp(lambda point: gradient(point, w), (z,), (v,))[1]  # of F too: that is J v

        # With gradients switched off, torch has no batched second derivative of Mish.
        with torch.enable_grad():
            weights = torch.zeros_like(generator(z))
            transpose, first = vjp(hessian_times_v, weights, has_aux=True)[1:]  # type: ignore[misc]
            return first, transpose(u)[0]

    def contracted(self, generator: Generator, z: Tensor, w: Tensor, tangents: Tensor) -> Tensor:
        """H(w) t for tangents t ``(t, B, d)``, as ``(t, B, d)``."""
        gradient = grad(lambda point: (generator(point) * w).sum())
        columns: Tensor = vmap(lambda tangent: jvp(gradient, (z,), (tangent,))[1])(tangents)
        return columns


class NestedForward:
    """Second derivatives by forward mode through forward mode: all there is inside of ``torch.no_grad``."""

    words = "nested forward mode"

    def along(self, generator: Generator, z: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        z, u, v = z.contiguous(), u.contiguous(), v.contiguous()
        with torch.enable_grad():  # torch's second forward derivative of SiLU and Mish asks for it
            first, second = jvp(lambda point: jvp(generator, (point,), (v,))[1], (z,), (u,))[:2]
        return first, second

    def contracted(self, generator: Generator, z: Tensor, w: Tensor, tangents: Tensor) -> Tensor:
        basis = basis_tangents(z)

        def gradient(point: Tensor) -> Tensor:
            return (Forward().jacobian(generator, point, basis)[1] * w).sum(-1).mT

        with torch.enable_grad():
            return torch.stack([jvp(gradient, (z.contiguous(),), (t.contiguous(),))[1] for t in tangents])


class Transposed:
    """First derivatives by reverse mode twice: J v is the derivative of ``w -> v^T J^T w``. Some 3 d evaluations."""

    words = "reverse mode, twice"

    def jacobian(self, generator: Generator, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """F(z) ``(B, D)`` and the derivatives along tangents ``(t, B, d)``, as ``(t, B, D)``."""
        with _Graph(generator, z) as graph:
            w = torch.zeros_like(graph.F).requires_grad_()
            pulled = _pull(graph.F, graph.point, w, keep=True)
            return graph.answer(graph.F), graph.answer(_pull_many(pulled, w, tangents, keep=graph.wanted))

    def along(self, generator: Generator, z: Tensor, v: Tensor) -> Tensor:
        """J(z) v, ``(B, D)``."""
        return self.jacobian(generator, z, v[None])[1][0]


class Reverse:
    """First derivatives by one backward pass per output, chunks of outputs at a time. Some 2 D evaluations."""

    words = "reverse mode over the outputs"

    def jacobian(self, generator: Generator, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        with _Graph(generator, z) as graph:
            outputs = torch.arange(graph.F.shape[1], device=z.device)
            columns = []
            for chunk in outputs.split(_OUTPUTS):
                one = (outputs == chunk[:, None]).to(z)[:, None, :].expand(-1, *graph.F.shape)
                rows = _pull_many(graph.F, graph.point, one, keep=graph.wanted)
                columns.append(torch.einsum("obd,tbd->tbo", rows, tangents))
            return graph.answer(graph.F), graph.answer(torch.cat(columns, dim=-1))

    def along(self, generator: Generator, z: Tensor, v: Tensor) -> Tensor:
        return self.jacobian(generator, z, v[None])[1][0]


class ReverseOverReverse:
    """Second derivatives by reverse mode through reverse mode: F''[u, v] is the derivative of ``w -> u^T H(w) v``."""

    words = "reverse over reverse mode"

    def along(self, generator: Generator, z: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """J v and F''[u, v], ``(B, D)`` both."""
        with _Graph(generator, z) as graph:
            w = torch.zeros_like(graph.F).requires_grad_()
            pulled = _pull(graph.F, graph.point, w, keep=True)
            hessian_times_v = _pull(pulled, graph.point, v, keep=True)
            first, second = _pull(pulled, w, v, keep=True), _pull(hessian_times_v, w, u, keep=graph.wanted)
            return graph.answer(first), graph.answer(second)

    def contracted(self, generator: Generator, z: Tensor, w: Tensor, tangents: Tensor) -> Tensor:
        """H(w) t for tangents t ``(t, B, d)``, as ``(t, B, d)``."""
        with _Graph(generator, z) as graph:
            pulled = _pull(graph.F, graph.point, w, keep=True)
            return graph.answer(_pull_many(pulled, graph.point, tangents, keep=graph.wanted))


def transposed_by_reverse(generator: Generator, z: Tensor, w: Tensor) -> Tensor:
    """J(z)^T w, ``(B, d)``, one backward pass."""
    with _Graph(generator, z) as graph:
        return graph.answer(_pull(graph.F, graph.point, w, keep=graph.wanted))


class _Graph:
    """The generator's graph at some points, made for derivatives that the caller may or may not differentiate."""

    def __init__(self, generator: Generator, z: Tensor) -> None:
        if torch._C._functorch.is_functorch_wrapped_tensor(z):
            raise NotImplementedError("derivatives by reverse mode cannot be differentiated by torch.func")
        self.generator, self.z, self.grad = generator, z, torch.enable_grad()
        # Whether anybody else asked for gradients: through the points, or through weights.
        self.wanted = torch.is_grad_enabled() and bool(z.requires_grad or generator(z[:1]).requires_grad)

    def __enter__(self) -> "_Graph":
        self.grad.__enter__()
        self.point = self.z if self.z.requires_grad else self.z.detach().requires_grad_()
        self.F = self.generator(self.point)
        return self

    def __exit__(self, *error: object) -> None:
        self.grad.__exit__(*error)

    def answer(self, tensor: Tensor) -> Tensor:
        """A result, with the graph where it is wanted."""
        return tensor if self.wanted else tensor.detach()


def _pull(output: Tensor, of: Tensor, weights: Tensor, *, keep: bool, many: bool = False) -> Tensor:
    """The derivative of ``<output, weights>``; zero where the output does not depend on it."""
    if not output.requires_grad:
        raise RuntimeError("the output carries no gradient")
    (found,) = torch.autograd.grad(
        output, of, weights, retain_graph=True, create_graph=keep, allow_unused=True, is_grads_batched=many
    )
    return of.new_zeros((len(weights), *of.shape) if many else of.shape) if found is None else found


def _pull_many(output: Tensor, of: Tensor, weights: Tensor, *, keep: bool) -> Tensor:
    """`_pull` for weights ``(t, ...)``: at once, or one by one where the backward passes cannot be batched."""
    try:
        return _pull(output, of, weights, keep=keep, many=True)
    except RuntimeError:
        return torch.stack([_pull(output, of, part, keep=keep) for part in weights])
