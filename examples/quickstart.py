"""A guarded encoder in one file: start a server, embed with the stock OpenAI client, compare."""

import json
import subprocess
import sys
import tempfile

import numpy as np
from openai import OpenAI

SENTENCES = [
    "Why was my card payment declined?",
    "My card payment was declined at the shop",
    "How do I top up with cash?",
    "The committee raised interest rates on Friday",
]

serve = [sys.executable, "-m", "tollkeeper", "serve", "--port", "0", "--admin-port", "0", "--json"]
with (
    tempfile.TemporaryDirectory() as folder,
    subprocess.Popen([*serve, "--data-dir", folder], stdout=subprocess.PIPE, text=True) as server,  # noqa: S603 - our own program
):
    try:
        facts = json.loads(server.stdout.readline())
        client = OpenAI(base_url=facts["url"], api_key=facts["key"])
        reply = client.embeddings.create(model=facts["model"], input=SENTENCES)
        rows = np.array([item.embedding for item in reply.data])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        print(f"{facts['model']} under profile {facts['profile']}: cosine similarity")
        for sentence, similarities in zip(SENTENCES, rows @ rows.T, strict=True):
            print(" ".join(f"{value:6.2f}" for value in similarities), " ", sentence)
    finally:
        server.terminate()
