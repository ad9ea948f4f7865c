drop function known_zone(text);
