# %% [markdown]
# # Pull the encoder and embed ECGs
#
# Run it after `make demo`: as a notebook (VS Code and PyCharm open `# %%`, jupytext converts it), or as
# `.venv/bin/python examples/pull_and_embed.py`, which prints and writes `pull_and_embed.png` into the current folder.
# The data home is `ECG_HOME`, or `var`; MLflow's store is `MLFLOW_TRACKING_URI`, or that of the home.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import mlflow
import numpy as np

from ecg_foundry import ecgs

home = Path(os.environ.get("ECG_HOME", "var")).resolve()
mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow/mlflow.db"))

# %% [markdown]
# ## The model
#
# It comes with its code, weights and preprocessing: this needs none of the pipeline.

# %%
encoder = mlflow.pyfunc.load_model("models:/ecg-encoder@champion")

# %% [markdown]
# ## ECGs
#
# 300 records, evenly spaced. Any array (records, leads, samples) in millivolt does; the request says its sampling rate
# and the order of its leads.

# %%
ds = ecgs.open("ptbxl", home=home)
some = ds.isel(record=np.unique(np.linspace(0, ds.sizes["record"] - 1, 300).astype(int)))
request = {"sampling_rate": round(1 / float(ds.time[1] - ds.time[0]), 6), "leads": ",".join(ds.lead.values)}
embedding_ND = encoder.predict(some.ecg.values, params=request)
print("embeddings", embedding_ND.shape)

# %% [markdown]
# ## Neighbours
#
# The cosine of the angle between two embeddings says how alike two ECGs are to the encoder. Records of one patient are
# left out: they are alike for another reason.

# %%
centred_ND = embedding_ND - embedding_ND.mean(axis=0)
unit_ND = centred_ND / np.linalg.norm(centred_ND, axis=1, keepdims=True)
similarity_NN = unit_ND @ unit_ND.T
patient = some.patient.values
similarity_NN[patient[:, None] == patient[None]] = -np.inf

query = 0
print(f"nearest to record {some.record[query].item()}: {some.labels[query].item()}")
for near in np.argsort(similarity_NN[query])[:-6:-1]:
    print(f"  {similarity_NN[query, near]:.2f}  record {some.record[near].item()}: {some.labels[near].item()}")

# %% [markdown]
# How much more often does the nearest record have a label than any record?

# %%
nearest = similarity_NN.argmax(axis=1)
frequent = some.has_label.sum("record").to_series().sort_values(ascending=False).head(8)
print("label     records  of nearest  of all")
for label, count in frequent.items():
    has_N = some.has_label.sel(label=label).values
    print(f"{label:10}{count:7}{has_N[nearest[has_N]].mean():12.2f}{has_N.mean():8.2f}")

# %% [markdown]
# ## A map
#
# The two directions in which embeddings differ most, with the labels that a quarter of the records, or fewer, have.

# %%
_, _, axes_DD = np.linalg.svd(centred_ND, full_matrices=False)
place_N2 = centred_ND @ axes_DD[:2].T
figure, axis = plt.subplots(figsize=(8, 7), layout="constrained")
axis.scatter(*place_N2.T, s=12, color="lightgrey", label="others")
for label in frequent[frequent <= len(place_N2) / 4].index[:5]:
    axis.scatter(*place_N2[some.has_label.sel(label=label).values].T, s=16, label=label)
axis.set(xlabel="first component", ylabel="second component", title=f"{len(place_N2)} ECGs of {ds.title}, embedded")
axis.legend()
figure.savefig("pull_and_embed.png", dpi=100)
print("pull_and_embed.png")
