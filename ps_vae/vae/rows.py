"""Rows of data as the parts of the model see them.

A row is x, and where the model is conditioned on labels y, one-hot, behind it. The encoder sees what the likelihood
makes of x, and y; the decoder z and y; the likelihood x alone (Sohn et al. 2015: q(z|x, y), p(x|z, y), and a prior that
knows no y).
"""

import numpy as np

from ps_vae.nn.arrays import Floats
from ps_vae.vae.layout import Parameters
from ps_vae.vae.network import Workspace

__all__ = ["joined", "see", "seen_by_decoder", "x_of"]


def see(parameters: Parameters, rows: Floats, workspace: Workspace) -> Floats:
    """What the encoder sees of `rows` (rows, width), and below it the prior's pseudo-inputs, if they are encoded beside
    them: (encoded, width), the workspace's array, or `rows` themselves where nothing has to be done.
    """
    w = workspace
    if w.likelihood.to_encoder is None and not w.inputs.shape[0] > w.rows:
        return rows
    batch = w.inputs[: w.rows]
    if rows is not w.batch or w.likelihood.to_encoder is not None:
        np.copyto(batch, rows)
    if w.likelihood.to_encoder is not None:
        features = w.config.inputs
        w.likelihood.to_encoder(rows[:, :features], parameters.own, batch[:, :features])
    if w.inputs.shape[0] > w.rows:
        np.copyto(w.inputs[w.rows :], parameters.prior[0])
    return w.inputs


def seen_by_decoder(rows: Floats, workspace: Workspace) -> Floats:
    """z of the workspace's u, and the labels of the rows that they are drawn for: (drawn, latent + classes)."""
    w = workspace
    latent = w.config.latent
    if w.prior.to_z is not None:
        w.prior.to_z(w.u, w.mapped)
    if w.config.classes:
        w.z[:, :latent] = w.mapped
        labels = rows[:, w.config.inputs :]
        w.z.reshape(w.samples, w.rows, -1)[:, :, latent:] = labels
    return w.z


def x_of(rows: Floats, inputs: int) -> Floats:
    """The features of rows, C order."""
    return rows if rows.shape[1] == inputs else np.ascontiguousarray(rows[:, :inputs])


def joined(z: Floats, rows: Floats, inputs: int) -> Floats:
    """z (n, latent), and the labels of `rows` (n, width), if they have any, behind it."""
    return z if rows.shape[1] == inputs else np.concatenate([z, rows[:, inputs:]], axis=1, dtype=z.dtype)
