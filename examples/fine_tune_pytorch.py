"""Fine-tune the encoder on your own labels, in plain PyTorch.

    make demo; make ui                                         # once: ECGs, an encoder, and MLflow on port 5000
    .venv/bin/python examples/fine_tune_pytorch.py             # the labels that PTB-XL has itself
    .venv/bin/python examples/fine_tune_pytorch.py --source incoming/clinic --labels labels.csv    # record_id,label

Patients are split into 70 % to train, 10 % to choose the epoch, and 20 % to test once at the end. For a registered,
calibrated and served classifier of the same, there is `ecg train-classifier`.
Shapes: N records, B records of a batch, C labels, D channels of the encoder.
"""

# %% Imports
import argparse
import csv
import os
from collections import defaultdict
from pathlib import Path

import mlflow
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.stats import rankdata

from ecg_foundry import ecgs

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--source", default="ptbxl", help="a source, a partition or a drop, as `ecgs.open` takes it")
parser.add_argument("--labels", help="a csv with the columns record_id and label; without it, the source's own labels")
parser.add_argument("--encoder", default="models:/ecg-encoder@champion")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--rate", type=float, default=3e-3, help="of the linear layer; the encoder learns at a tenth of it")
parser.add_argument("--least", type=int, default=10, help="ECGs with and without a label that each split needs")
parser.add_argument("--most", type=int, help="ECGs to use at most, for a first try")
parser.add_argument("--out", help="a .safetensors file for the weights")
options = parser.parse_args()
rng = np.random.default_rng(0)
torch.manual_seed(0)

# %% ECGs and labels
ds = ecgs.open(options.source)  # an xarray.Dataset; its ECGs are read when they are needed
ds = ds.isel(record=np.arange(ds.sizes["record"])[: options.most])
if options.labels is None:
    names, y_NC = ds.label.values, ds.has_label.values
else:
    of_record = defaultdict(set)
    with Path(options.labels).open(newline="", encoding="utf-8-sig") as lines:
        for line in csv.DictReader(lines):
            of_record[line["record_id"]].add(line["label"])
    labelled = np.isin(ds.record.values, [*of_record])
    print(
        f"{labelled.sum()} of {len(of_record)} labelled records are among the {len(labelled)} ECGs of {options.source}"
    )
    ds = ds.isel(record=labelled)
    names = np.array(sorted(set().union(*of_record.values())))
    y_NC = np.array([[name in of_record[record] for name in names] for record in ds.record.values])

# %% A split by patient: no one is in two parts. Without patients, each ECG stands for one.
patient_N = np.where(ds.patient.values == "", "record " + ds.record.values.astype(str), ds.patient.values)
patients = rng.permutation(np.unique(patient_N))
cuts = [int(0.7 * len(patients)), int(0.8 * len(patients))]
train, validation, test = (np.flatnonzero(np.isin(patient_N, part)) for part in np.split(patients, cuts))
counts = [(y_NC[part].sum(axis=0), (~y_NC[part]).sum(axis=0)) for part in (train, validation, test)]
kept_C = np.min([np.minimum(*count) for count in counts], axis=0) >= options.least
names, y_NC = names[kept_C], y_NC[:, kept_C].astype(np.float32)
print(f"{len(train)} ECGs to train, {len(validation)} to validate, {len(test)} to test; labels: {', '.join(names)}")
if not len(names):
    raise SystemExit(f"no label has {options.least} ECGs with it and without it in each part: label more, or --least 1")

# %% The encoder of a released version, a torch.nn.Module, and a linear layer on the mean of its tokens. The tokens of
# all ECGs have much in common: a batch norm takes that out, so that the layer learns fast.
mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000"))
encoder = mlflow.pyfunc.load_model(options.encoder).unwrap_python_model().encoder
device = "cuda" if torch.cuda.is_available() else "cpu"
layer = torch.nn.Linear(encoder.config.dim, len(names))
norm = torch.nn.BatchNorm1d(encoder.config.dim, eps=1e-8, affine=False)
network = torch.nn.ModuleDict({"encoder": encoder, "norm": norm, "layer": layer}).to(device)
torch.nn.init.zeros_(layer.weight)
share_C = torch.from_numpy(y_NC[train].mean(axis=0))
with torch.no_grad():
    layer.bias.copy_(share_C.logit())  # so that training starts at each label's share
groups = [
    {"params": encoder.parameters(), "lr": options.rate / 10},
    {"params": layer.parameters(), "lr": options.rate},
]
optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
steps = options.epochs * -(-len(train) // options.batch)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def logits(rows):
    """Return the logits (B, C) of ECGs. The store holds them as the encoder takes them: (B, 8, 2500), millivolt."""
    x = torch.from_numpy(ds.ecg.isel(record=rows).values).nan_to_num()  # NaN: a lead that was not recorded
    return layer(norm(encoder.embed(x.to(device))))


def mean_auc(rows):
    """Return the mean over the labels of the area under the ROC curve."""
    network.eval()
    with torch.inference_mode():
        score_NC = torch.cat([logits(part).cpu() for part in np.split(rows, range(64, len(rows), 64))]).numpy()
    positive_NC = y_NC[rows] == 1
    positives_C, negatives_C = positive_NC.sum(axis=0), (~positive_NC).sum(axis=0)
    ranks_C = (rankdata(score_NC, axis=0) * positive_NC).sum(axis=0)
    return float(((ranks_C - positives_C * (positives_C + 1) / 2) / (positives_C * negatives_C)).mean())


# %% Train, and keep the epoch that is best on validation
best_auc, best = -1.0, {}
print(f"before training, validation AUC {mean_auc(validation):.3f}")
for epoch in range(1, options.epochs + 1):
    network.train()
    losses = []
    for rows in np.array_split(rng.permutation(train), steps // options.epochs):
        loss = F.binary_cross_entropy_with_logits(logits(rows), torch.from_numpy(y_NC[rows]).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    auc = mean_auc(validation)
    print(f"epoch {epoch} of {options.epochs}, loss {np.mean(losses):.3f}, validation AUC {auc:.3f}")
    if auc > best_auc:
        best_auc, best = auc, {name: value.detach().clone() for name, value in network.state_dict().items()}

# %% Test once, with the chosen epoch
network.load_state_dict(best)
print(f"validation AUC {best_auc:.3f}, test AUC {mean_auc(test):.3f}")
if options.out:
    save_file({name: value.cpu().contiguous() for name, value in best.items()}, options.out)
    print(options.out)
