"""Models whose posterior is known in closed form or by quadrature."""
