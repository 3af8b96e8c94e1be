"""Files with the operator's own forms of errors."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.error_templates import error_templates
from kongtwist.config.load import Conf, ConfError


class TemplateTests(SynchronousTestCase):
    def conf(self, **texts: str) -> Conf:
        """A configuration whose templates are these."""
        names = {}
        for form, text in texts.items():
            path = Path(self.mktemp())
            path.write_text(text)
            names[f"error_template_{form}"] = str(path)
        return Conf(names)

    def test_read(self) -> None:
        self.assertEqual(error_templates(self.conf()), {})
        wanted = {"html": "<p>%s%%", "json": '{"m": "%s", "id": "%s"}'}
        self.assertEqual(error_templates(self.conf(**wanted)), wanted)

    def test_refused(self) -> None:
        """All that is wrong, at once."""
        conf = self.conf(html="%d", json="%s%s%s", xml="100%")
        conf.error_template_plain = "/no/such/file"
        error = self.assertRaises(ConfError, error_templates, conf)
        self.assertEqual(len(error.problems), 4)
        for sentence, wanted in zip(
            sorted(error.problems),
            (
                "percent sign that is neither",
                "more than two %s",
                "No such file or directory",
                "percent sign that is neither",
            ),
            strict=True,
        ):
            self.assertIn(wanted, sentence)
