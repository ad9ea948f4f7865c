-- Snippets keep the short words at their ends: of "Oil the gate" the match alone was left.
create or replace function search_snippet(p_query text, p_text text) returns text language sql immutable parallel safe
  return ts_headline('public.workspace_text', translate(left(p_text, 20000), chr(2) || chr(3), ''),
    websearch_to_tsquery('public.workspace_text', p_query),
    'StartSel=' || chr(2) || ', StopSel=' || chr(3)
      || ', MaxWords=30, MinWords=12, ShortWord=0, MaxFragments=2, FragmentDelimiter=" … "');
