"""A search whose budget left something out goes on with a larger one, and ends as one without any."""

import shutil

from tinyproject import Project


def test_a_larger_budget_goes_on_and_ends_as_no_budget_does(tmp_path, tiny_settings, scored):
    (tmp_path / "recipe.yaml").write_text("range: [minmax, mse, percentile]\nbias_correction: fast")
    project = Project(tmp_path, tiny_settings)
    project.run("whole", recipe="recipe.yaml")
    every = len(scored)
    scored.clear()
    shutil.copytree(tmp_path / "whole/tiny/train", tmp_path / "small/tiny/train")
    _, said = project.run("small", recipe="recipe.yaml", budget=0.0)
    assert len(scored) == 1
    assert "is too small for one trial" in said
    assert f"left out {every - 1} trials" in said
    assert project.record("small").metrics["untried"] == every - 1
    project.kill("small", "judging", 3, 1, recipe="recipe.yaml", budget=1000.0)
    scored.clear()
    lines, said = project.run("small", recipe="recipe.yaml", budget=5000.0)
    assert "quantize.budget changed 0.0 -> 5000.0" in lines[0]
    assert "goes on after 3 trials that were measured before" in said  # the small budget's, and the killed run's two
    assert len(scored) == every - 3
    whole, gone_on = project.record("whole"), project.record("small")
    assert gone_on.outputs == whole.outputs
    assert gone_on.metrics == {**whole.metrics, "untried": 0.0}
    lines, _ = project.run("small", recipe="recipe.yaml")
    assert lines == ["quantize: fresh"]
