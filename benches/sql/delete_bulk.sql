DELETE FROM @from@ WHERE id <= @changes@
