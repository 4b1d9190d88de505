"""What river's classifiers say on its bundled streams, as NDJSON: run by `bench.regret --river`.

    PYTHON-WITH-RIVER bench/river_votes.py

Prequential: each model first says how likely each class is, then learns from the outcome. A line:
{"stream", "classes", "outcome", "votes": {model: {class: probability}}}.
"""

from __future__ import annotations

import json

from river import (
    compose,
    datasets,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    preprocessing,
    tree,
)


def models() -> dict[str, object]:
    """Six honest classifiers, fresh."""
    scaled = preprocessing.StandardScaler
    one = multiclass.OneVsRestClassifier
    return {
        "logistic": compose.Pipeline(scaled(), one(linear_model.LogisticRegression())),
        "alma": compose.Pipeline(scaled(), one(linear_model.ALMAClassifier())),
        "naive_bayes": naive_bayes.GaussianNB(),
        "hoeffding": tree.HoeffdingTreeClassifier(grace_period=50),
        "stump": tree.ExtremelyFastDecisionTreeClassifier(grace_period=50, max_depth=2),
        "neighbours": compose.Pipeline(scaled(), neighbors.KNNClassifier(n_neighbors=7)),
    }


def main() -> None:
    """Print every round of every stream."""
    for source in (datasets.Phishing(), datasets.Bananas(), datasets.ImageSegments()):
        rounds = list(source)
        classes = sorted({str(outcome) for _, outcome in rounds})
        judged = models()
        for features, outcome in rounds:
            votes = {}
            for name, model in judged.items():
                said = model.predict_proba_one(features)  # type: ignore[attr-defined]
                known = {str(each): float(said.get(each, 0.0)) for each in said}
                total = sum(known.get(each, 0.0) for each in classes)
                even = 1 / len(classes)
                votes[name] = {
                    each: known.get(each, 0.0) / total if total > 0 else even for each in classes
                }
                model.learn_one(features, outcome)  # type: ignore[attr-defined]
            told = {"stream": type(source).__name__, "classes": classes}
            print(json.dumps({**told, "outcome": str(outcome), "votes": votes}))


if __name__ == "__main__":
    main()
