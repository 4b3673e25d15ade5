"""The control plane: spec -> plan -> trial -> record -> store -> aggregate -> report. `import adaptune` is its face."""
