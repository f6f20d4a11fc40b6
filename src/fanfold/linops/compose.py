"""One operator after another."""

from fanfold.linops.base import LinearOperator


class Compose(LinearOperator):
    """`A B x`: what `A @ B` gives for two operators.

    Raises:
        ValueError: If the shapes, dtypes or devices do not fit.
    """

    def __init__(self, A: LinearOperator, B: LinearOperator):
        if A.n != B.m:
            raise ValueError(f"cannot compose {A} after {B}: {B.m} entries come out and {A.n} are expected.")
        if (A.dtype, A.device) != (B.dtype, B.device):
            raise ValueError(f"cannot compose {A} after {B}: bring both to one dtype and device with .to().")
        super().__init__((A.m, B.n), A.dtype, A.device)
        self._A, self._B = A, B

    def _apply(self, x):
        return self._A @ (self._B @ x)

    def _adjoint(self, y):
        return self._B.H @ (self._A.H @ y)

    def parts(self):
        return (self._A, self._B)

    def to(self, device=None, dtype=None):
        return Compose(self._A.to(device, dtype), self._B.to(device, dtype))
