UPDATE @from@ SET status = 'void', updated_at = now() WHERE id <= @changes@
