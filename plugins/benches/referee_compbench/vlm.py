"""P(Yes) of a vision-language model, in the way of VQAScore (Lin et al. 2024, arXiv 2404.01291): it is asked whether
the picture shows the prompt, and its answer's first word tells how sure it is.

The softmax runs over the whole vocabulary at the first position that would be generated, and the token is "Yes": a
model that wants to say something else gets a low score, not a share of yes and no. Any transformers model of the class
image-text-to-text serves: Qwen-VL, PaliGemma, LLaVA ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image as Pillow
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from referee.errors import WeightsError
from referee.weights import FAULTS
from referee_grounding_vqa.preprocess import quiet

WORD = "Yes"


class YesNo:
    """Asks a vision-language model.

    Args:
        model: of transformers; it is frozen.
        processor: its own.
        question: with {prompt}, the place where the prompt goes.
        device: torch's name.

    Raises:
        WeightsError: "Yes" is no single token of its.
    """

    def __init__(self, model: Any, processor: Any, question: str, device: str) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.processor = processor
        self._question = question
        self._device = device
        ids = processor.tokenizer.encode(WORD, add_special_tokens=False)
        if len(ids) != 1:
            raise WeightsError(f"This model's tokenizer makes {len(ids)} tokens of '{WORD}': no single one to look at.")
        self.yes_id: int = ids[0]

    @classmethod
    def load(cls, folder: Path, question: str, device: str, dtype: str) -> YesNo:
        """From a transformers folder: safetensors alone, every tensor there, and no code of its own.

        Raises:
            WeightsError: it is no whole image-text-to-text model with its processor.
        """
        try:
            with quiet():
                model, found = AutoModelForImageTextToText.from_pretrained(
                    folder, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True,
                    trust_remote_code=False, output_loading_info=True,
                )  # fmt: skip
                processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (*FAULTS, ImportError, StrictDataclassError) as error:
            raise WeightsError(f"The vision-language model in {folder} cannot be loaded: {error}") from error
        if missing := sorted(map(str, found["missing_keys"])):  # transformers fills them with random numbers
            raise WeightsError(f"{folder} has {len(missing)} missing keys, first {missing[0]}: not a whole model.")
        if getattr(processor, "tokenizer", None) is None:
            raise WeightsError(f"{folder} has no processor of pictures and text.")
        return cls(model, processor, question, device)

    @torch.inference_mode()
    def __call__(self, picture: Pillow.Image, prompt: str) -> float:
        """P(Yes), in [0, 1]."""
        inputs = self.inputs(picture.convert("RGB"), prompt).to(self._device, self.model.dtype)
        with quiet():
            said = self.model.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        words: Tensor = said.logits[0][0].float().softmax(dim=-1)  # as they come, before generation's own rules
        return words[self.yes_id].item()

    def inputs(self, picture: Pillow.Image, prompt: str) -> Any:
        """What the model reads: the question after the picture, as its chat template has it, if it has one."""
        text = self._question.replace("{prompt}", prompt)
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": text}]
            line = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        else:
            line = getattr(self.processor, "image_token", "") + text
        return self.processor(images=[picture], text=[line], return_tensors="pt")
