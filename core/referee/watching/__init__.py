"""How a run is watched, and shown when it is over: terminal, previews, films, charts, TensorBoard, the report."""
