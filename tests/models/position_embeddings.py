"""Position embeddings whose values are the row and the column of their patch."""

import torch

N_FEATURES = 192


def make_positions(n_rows=14, n_columns=14):
    """Two prefix tokens of 100 and 200; then patches with (row, column, 0, 0, ...)."""
    grid = torch.zeros(n_rows, n_columns, N_FEATURES)
    grid[..., 0] = torch.arange(n_rows)[:, None]
    grid[..., 1] = torch.arange(n_columns)[None]
    class_token = torch.full((1, N_FEATURES), 100.0)
    distillation_token = torch.full((1, N_FEATURES), 200.0)
    patches = grid.reshape(-1, N_FEATURES)
    return torch.cat([class_token, distillation_token, patches])[None]


def expected_positions(n_new, n_old):
    """Centres of the new patches, in units of the old ones."""
    return (torch.arange(n_new) + 0.5) * n_old / n_new - 0.5


def check_positions(positions, grid, old_grid=(14, 14)):
    """Check that rows and columns were resampled along their own axes."""
    positions = positions.detach()
    assert torch.equal(positions[0, 0], torch.full((N_FEATURES,), 100.0))
    assert torch.equal(positions[0, 1], torch.full((N_FEATURES,), 200.0))
    patches = positions[0, 2:].reshape(*grid, N_FEATURES)
    for axis in (0, 1):
        lines = patches[..., axis].movedim(axis, 0)
        assert float((lines - lines[:, :1]).abs().max()) < 1e-3, "varies along one axis"
        line = lines[:, 0]
        assert (line.diff() > 0).all()
        n_edge = 3 if grid[axis] > 8 else 2  # bicubic interpolation bends at the edges
        inner = slice(n_edge, -n_edge)
        expected = expected_positions(grid[axis], old_grid[axis])
        torch.testing.assert_close(line[inner], expected[inner], atol=0.06, rtol=0)
