"""Trains by a loop of one's own, and goes on where it was stopped.

mpirun -np 2 python examples/own_loop.py [FOLDER]
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hpcddl

EPOCHS = 5
folder = sys.argv[1] if len(sys.argv) > 1 else "runs/own_loop"

world = hpcddl.init()  # from here on a rank that fails ends all
pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
dataset = TensorDataset(images[:1500], labels[:1500])
sampler = hpcddl.BatchSampler(dataset, batch=32)  # of each rank
loader = DataLoader(dataset, batch_sampler=sampler)

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10)).to(world.device)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
learner = hpcddl.Learner(model, optimizer, "dpsgd", topology="ring")
before = learner.resume(folder) or {"epochs": 0}

for epoch in range(before["epochs"], EPOCHS):
    sampler.start_at(epoch)
    for x, y in loader:
        with learner.step():
            loss = nn.functional.cross_entropy(model(x.to(world.device)), y.to(world.device))
            loss.backward()
    with learner.consensus(), torch.no_grad():
        found = model(images[1500:].to(world.device)).argmax(1).cpu()
    learner.save(folder, {"epochs": epoch + 1})
    if world.rank == 0:
        error = 100 * (found != labels[1500:]).float().mean()
        print(f"epoch {epoch + 1}: test error of the consensus {error:.1f} %", flush=True)
