# %% [markdown]
# # Explore the harmonized ECGs
#
# Run it after `make demo`: as a notebook (VS Code and PyCharm open `# %%`, jupytext converts it), or as
# `.venv/bin/python examples/explore_store.py`, which prints and writes `explore_store.png` into the current folder.
# The data home is `ECG_HOME`, or `var`.

# %%
import matplotlib.pyplot as plt

from ecg_foundry import ecgs

ds = ecgs.open("ptbxl")  # nothing of the ECGs is read yet
print(ds)

# %% [markdown]
# ## Who is in it
#
# What stands along `record` is a table.

# %%
people = ds.reset_coords()[["patient", "age", "sex", "fold", "labels"]].to_dataframe()
print(people.head())
print(people.groupby("sex")["age"].describe().round(1))

# %% [markdown]
# ## What the source says of them
#
# `has_label` has a column for each label, so counts, pairs of labels and selections are sums and products.

# %%
counts = ds.has_label.sum("record").to_series().sort_values(ascending=False)
print(counts.head(10))

# %% [markdown]
# ## Which were recorded well
#
# Each record has the quality figures that harmonization computed.

# %%
print(ds.quality.to_pandas().quantile([0.05, 0.5, 0.95]).T.round(4))

# %% [markdown]
# ## Look at one
#
# The quietest record with the label that is in the middle by count. Only this record is read.

# %%
label = counts[counts > 0].index[len(counts[counts > 0]) // 2]
chosen = ds.sel(record=ds.has_label.sel(label=label, drop=True))
one = chosen.isel(record=int(chosen.quality.sel(figure="noise").argmin("record")))
print(f"record {one.record.item()}: {one.labels.item()}; {one.sex.item() or 'sex not known'}, age {one.age.item():.0f}")

figure, axes = plt.subplots(len(ds.lead), 1, figsize=(12, 10), sharex=True, sharey=True, layout="constrained")
for axis, lead in zip(axes, ds.lead.values, strict=True):
    axis.plot(one.time, one.ecg.sel(lead=lead), color="black", linewidth=0.7)
    axis.set_ylabel(lead, rotation=0, labelpad=15)
    axis.grid(alpha=0.3)
axes[-1].set_xlabel("s")
figure.suptitle(f"{ds.title}, record {one.record.item()}: {one.labels.item()} (mV)")
figure.savefig("explore_store.png", dpi=100)
print("explore_store.png")

# %% [markdown]
# ## Cite it

# %%
print(f"{ds.title} {ds.version}, {ds.licence}. {ds.citation}")
